"""The routes of the admin API."""

from __future__ import annotations

import gzip
from importlib.metadata import version

import msgspec
from aiohttp import web

from gateway.admin import page, params, present, prompt_cache, tree
from gateway.admin.budgets import run_budget
from gateway.admin.openapi import ROUTES, document
from gateway.admin.problems import ApiError, bad_parameter, not_found
from gateway.admin.state import STATE, AdminState, answer
from gateway.admin.views import CallPage, Health, Index, OutcomeIn, OutcomeView, RunDetail, RunPage, RunView
from gateway.journal.record import OutcomeRecord

VERSION = version("tollgate")

_outcome_in = msgspec.json.Decoder(OutcomeIn)
_PRICED_MODELS = 500


async def index(request: web.Request) -> web.Response:
    """The live page for browsers."""
    if page.wanted(request):
        return page.shell(request)
    return answer(Index(name="tollgate", version=VERSION, routes=[f"{r.method} {r.path}" for r in ROUTES]))


async def openapi(request: web.Request) -> web.Response:
    return answer(document(VERSION))


async def healthz(request: web.Request) -> web.Response:
    return answer(Health())


async def readyz(request: web.Request) -> web.Response:
    readiness = request.app[STATE].readiness()
    return answer(readiness, 200 if readiness.ready else 503)


async def metrics(request: web.Request) -> web.Response:
    state = request.app[STATE]
    accept, packed = request.headers.get("Accept", ""), _takes_gzip(request)

    def rendered() -> tuple[bytes, str]:
        body, content_type = state.metrics.render(accept)
        return gzip.compress(body, 1) if packed else body, content_type

    body, content_type = await state.ask(rendered)
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    return web.Response(body=body, headers={**headers, "Content-Encoding": "gzip"} if packed else headers)


def _takes_gzip(request: web.Request) -> bool:
    """As Prometheus asks: a scrape is a fifteenth of its size then."""
    for one in request.headers.get("Accept-Encoding", "").replace(" ", "").lower().split(","):
        name, _, weight = one.partition(";q=")
        if name == "gzip":
            return not weight or weight.strip("0.") != ""
    return False


async def calls(request: web.Request) -> web.Response:
    state = request.app[STATE]
    values = params.given(request, (*params.CALL_FILTERS, *params.PAGE))
    where, limit, after = params.call_filter(values), params.limit(values), params.cursor(values)

    def listed() -> CallPage:
        rows = state.ledger.calls(where, limit + 1, after)
        shown = rows[:limit]
        following = params.next_cursor(shown[-1]["started_at"], shown[-1]["id"]) if len(rows) > limit else None
        return CallPage(calls=[present.call(row) for row in shown], next=following)

    return answer(await state.ask(listed))


async def call(request: web.Request) -> web.Response:
    state, id = request.app[STATE], request.match_info["id"]
    params.given(request, ())
    row = await state.ask(lambda: state.ledger.call(id))
    if row is None:
        raise not_found("call_not_found", f"there is no call {id!r}")
    return answer(present.call(row))


async def runs(request: web.Request) -> web.Response:
    state = request.app[STATE]
    values = params.given(request, (*params.RUN_FILTERS, "order", *params.PAGE))
    where, limit, after = params.run_filter(values), params.limit(values), params.cursor(values)
    dearest = params.dearest(values)

    def listed() -> RunPage:
        rows = state.ledger.runs(where, limit + 1, after, dearest=dearest)
        shown: list[RunView] = [present.run(row, state.ledger.agents(row["run_id"])) for row in rows[:limit]]
        last = rows[limit - 1] if len(rows) > limit and not dearest else None
        following = params.next_cursor(last["first_at"], last["run_id"]) if last is not None else None
        return RunPage(runs=shown, next=following)

    return answer(await state.ask(listed))


async def run(request: web.Request) -> web.Response:
    state, id = request.app[STATE], request.match_info["id"]
    params.given(request, ())

    def detail() -> RunDetail | None:
        ledger = state.ledger
        with ledger.snapshot():
            row = ledger.run(id)
            if row is None:
                return None
            limit = tree.LEAVES + 1
            rows = tree.RunRows(
                row, ledger.steps(id), ledger.run_calls(id, limit), ledger.run_tools(id, limit), ledger.outcomes(id)
            )
            caches = ledger.prompt_cache(id)
        shown = tree.run_detail(rows)
        shown.prompt_cache = prompt_cache.of_run(caches)
        return shown

    found = await state.ask(detail)
    if found is None:
        raise not_found("run_not_found", f"there is no run {id!r}")
    found.budget = await run_budget(state, id)
    return answer(found)


async def report_outcome(request: web.Request) -> web.Response:
    """The outcome is in the journal before this answers; 202 says that the ledger does not show it yet."""
    state, id = request.app[STATE], request.match_info["id"]
    params.given(request, ())
    report = await _report(request)
    if not await _known(state, id):
        raise not_found("run_not_found", f"there is no run {id!r}")
    record = OutcomeRecord(state.new_id(), state.now(), id, report.outcome, report.value, report.note)
    if not state.append(record):
        raise ApiError(503, "journal_unavailable", "the outcome cannot be written now", headers={"Retry-After": "1"})
    state.touch(id)
    shown = await state.caught_up() and await state.ask(lambda: state.ledger.has_outcome(record.id))
    view = OutcomeView(
        id=record.id,
        run_id=id,
        outcome=record.kind,
        value=record.value,
        note=record.note or None,
        at=present.moment(record.at),
    )
    return answer(view, 201 if shown else 202)


async def _known(state: AdminState, run_id: str) -> bool:
    """Is there such a run? Its calls may be on their way; while the ledger lags the doubt is in its favour."""
    if await state.ask(lambda: state.ledger.run(run_id)) is not None:
        return True
    return not await state.caught_up() or await state.ask(lambda: state.ledger.run(run_id)) is not None


async def _report(request: web.Request) -> OutcomeIn:
    if request.content_type != "application/json":
        raise ApiError(415, "unsupported_media_type", "send application/json")
    try:
        report = _outcome_in.decode(await request.read())
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ApiError(400, "bad_body", str(e), parameter="body") from None
    if report.outcome == "score" and report.value is None:
        raise bad_parameter("value", "a score needs one")
    return report


async def outcomes(request: web.Request) -> web.Response:
    state = request.app[STATE]
    where = params.run_filter(params.given(request, ("agent", "tenant", "since", "until")))
    return answer(tree.outcome_page(await state.ask(lambda: state.ledger.by_outcome(where))))


async def prices(request: web.Request) -> web.Response:
    """Prices of the models that were asked for."""
    state = request.app[STATE]
    params.given(request, ())
    book = state.prices()
    models = await state.ask(lambda: state.ledger.models(_PRICED_MODELS))
    listed = await state.ask(lambda: [book.describe(provider, model) for provider, model in models])
    return answer({"version": book.version, "models": listed})


async def price(request: web.Request) -> web.Response:
    state, model = request.app[STATE], request.match_info["model"]
    book = state.prices()
    provider = params.given(request, ("provider",)).get("provider", "")
    described = await state.ask(lambda: book.describe(provider, model))
    if not described["known"]:
        raise not_found(
            "price_not_found", f"no price is known for {model!r}" + (f" of {provider!r}" if provider else "")
        )
    return answer(described)
