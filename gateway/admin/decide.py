"""The routes that change what runs may do, and the one that sums a run up.

A run that nobody has seen may be killed or limited all the same: that is how a limit is there before the first call.
Bodies must be JSON, also empty ones: a web page of another origin cannot send that without being asked back (CORS).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from sqlite3 import Row
from typing import Any

from aiohttp import web
from msgspec import structs

from gateway.admin import params, present
from gateway.admin.decision_views import (
    ControlsView,
    DecidedView,
    DecisionIn,
    DecisionView,
    LimitsIn,
    LimitsView,
    RaiseIn,
    RunSummary,
    StandingView,
    StopView,
    SubjectIn,
)
from gateway.admin.limit_views import CapsView
from gateway.admin.problems import ApiError
from gateway.admin.state import STATE, AdminState, PriceBook, answer
from gateway.admin.tree import LEAVES
from gateway.admin.views import UsageView
from gateway.call import Outcome, Usage, UsageSource
from gateway.errors import BudgetExceeded, LedgerUnavailable, RunStopped
from gateway.policy.controls import Decision, Kind, Scope, Standing
from gateway.recorder.ledger_rows import decode_detail
from gateway.spend import NANO_USD, RunLimits

DONE = {Kind.KILL: "killed", Kind.RESUME: "resumed", Kind.RAISE: "raised", Kind.LIMIT: "limited"}
DONE |= {Kind.OPEN: "forced_open", Kind.CLOSE: "forced_closed", Kind.AUTO: "released"}
STOPS = frozenset((BudgetExceeded.code, RunStopped.code))
SHOWN = 100
LONGEST = 200
FORCE_SECONDS = 1.0  # for the workers to take a decision in
_POLL_SECONDS = 0.02


async def kill_run(request: web.Request) -> web.Response:
    given = await params.body_of(request, DecisionIn)
    return await decided(request, Kind.KILL, given, Scope.RUN, request.match_info["id"])


async def resume_run(request: web.Request) -> web.Response:
    given = await params.body_of(request, DecisionIn)
    return await decided(request, Kind.RESUME, given, Scope.RUN, request.match_info["id"])


async def raise_run(request: web.Request) -> web.Response:
    given = await params.body_of(request, RaiseIn)
    amount = params.nano(given.budget_usd)
    return await decided(request, Kind.RAISE, given, Scope.RUN, request.match_info["id"], amount=amount)


async def limit_run(request: web.Request) -> web.Response:
    given = await params.body_of(request, LimitsIn)
    limits = RunLimits(
        usd=None if given.budget_usd is None else params.nano(given.budget_usd),
        calls=given.max_calls,
        steps=given.max_steps,
        tools=given.max_tools,
        seconds=None if given.max_minutes is None else max(1, round(given.max_minutes * 60)),
        depth=given.max_depth,
    )
    any_given = any(limit is not None for limit in structs.astuple(limits))
    return await decided(
        request, Kind.LIMIT, given, Scope.RUN, request.match_info["id"], limits=limits if any_given else None
    )


async def kill(request: web.Request) -> web.Response:
    given = await params.body_of(request, SubjectIn)
    return await decided(request, Kind.KILL, given, Scope(given.scope), given.value)


async def resume(request: web.Request) -> web.Response:
    given = await params.body_of(request, SubjectIn)
    return await decided(request, Kind.RESUME, given, Scope(given.scope), given.value)


async def controls(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    try:
        stopped, made = await state.ask(lambda: (state.decisions.stopped(), state.decisions.decisions(SHOWN)))
    except OSError as error:
        raise unavailable(error) from None
    return answer(ControlsView(stopped=[StandingView(**_standing(s)) for s in stopped], decisions=_decisions(made)))


async def run_summary(request: web.Request) -> web.Response:
    state, id = request.app[STATE], request.match_info["id"]
    params.given(request, ())
    complete = await state.caught_up()
    book = state.prices()

    def gather() -> RunSummary:
        with state.ledger.snapshot():
            row, calls = state.ledger.run(id), state.ledger.run_calls(id, LEAVES)
        return summary(id, row, calls, book, complete)

    return answer(await state.ask(gather))


async def decided(
    request: web.Request,
    kind: Kind,
    given: DecisionIn,
    scope: Scope,
    value: str,
    *,
    amount: int = 0,
    limits: RunLimits | None = None,
) -> web.Response:
    """Write a decision down, tell the journal, and wait for the workers to take it in: it holds from its writing on."""
    state = request.app[STATE]
    if len(value) > LONGEST:
        raise ApiError(400, "bad_parameter", f"id: longer than {LONGEST} characters", parameter="id")
    decision = Decision(kind, scope, value, amount, given.reason.strip(), given.by.strip(), state.now(), limits)
    try:
        standing = await state.ask(lambda: state.decisions.record(decision))
    except OSError as error:
        raise unavailable(error) from None
    detail: dict[str, str | int | float | bool] = {"value": value, "by": decision.who, "reason": decision.reason}
    if kind is Kind.RAISE:
        detail["budget_usd"] = amount / NANO_USD
    state.event(f"{scope}_{DONE[kind]}", detail)
    if scope is Scope.RUN:
        state.touch(value)
    known = await _known(state, value) if scope is Scope.RUN else None
    taken = await in_force(state, standing.revision)
    return answer(DecidedView(**_standing(standing), in_force=taken, known=known), 200 if taken else 202)


async def _known(state: AdminState, run_id: str) -> bool | None:
    try:
        return await state.ask(lambda: state.ledger.run(run_id)) is not None
    except LedgerUnavailable:  # the decision holds without it
        return None


async def in_force(state: AdminState, revision: int) -> bool:
    """Wait a moment for every worker to take a decision in; did they?"""
    until = state.monotonic() + min(FORCE_SECONDS, state.patience)
    while not state.in_force(revision):
        if state.monotonic() >= until:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


def unavailable(error: OSError) -> ApiError:
    return ApiError(503, "controls_unavailable", str(error), headers={"Retry-After": "1"})


def _limits(limits: RunLimits | None) -> LimitsView | None:
    if limits is None:
        return None
    return LimitsView(
        budget_usd=None if limits.usd is None else limits.usd / NANO_USD,
        max_calls=limits.calls,
        max_steps=limits.steps,
        max_tools=limits.tools,
        max_minutes=None if limits.seconds is None else limits.seconds / 60,
        max_depth=limits.depth,
    )


def _standing(standing: Standing) -> dict[str, Any]:
    """The fields of StandingView."""
    return {
        "scope": str(standing.scope),
        "value": standing.value,
        "stopped": bool(standing.killed_at),
        "reason": standing.reason or None,
        "by": standing.who or None,
        "since": present.moment(standing.killed_at) if standing.killed_at else None,
        "budget_usd": None if standing.budget is None else standing.budget / NANO_USD,
        "limits": _limits(standing.limits),
    }


def _decisions(made: Sequence[Decision]) -> list[DecisionView]:
    return [
        DecisionView(
            kind=d.kind.value,
            scope=d.scope.value,
            value=d.value,
            amount_usd=d.amount / NANO_USD if d.kind is Kind.RAISE else None,
            limits=_limits(d.limits),
            caps=None if d.caps is None else CapsView(**present.caps_fields(d.caps)),
            reason=d.reason or None,
            by=d.who or None,
            at=present.moment(d.at),
        )
        for d in made
    ]


def summary(id: str, row: Row | None, calls: Sequence[Row], book: PriceBook, complete: bool) -> RunSummary:
    """`calls` are those of the run, the oldest first."""
    if row is None:
        return RunSummary(
            id=id, calls=0, refused=0, errors=0, usage=_NO_USAGE, cost_usd=0.0,
            unknown_cost_calls=0, tool_calls=0, tool_errors=0, saved_usd=0.0, duration_ms=0.0, stopped=None,
            complete=complete,
        )  # fmt: skip
    return RunSummary(
        **present.totals(row),
        id=id,
        refused=sum(call["outcome"] == Outcome.REFUSED for call in calls),
        saved_usd=present.usd(sum(saved(call, book) for call in calls)),
        duration_ms=present.ms(row["last_at"] - row["first_at"]),
        stopped=stopped(calls),
        complete=complete,
    )


_NO_USAGE = UsageView(input_tokens=0, output_tokens=0, cache_read_tokens=0, cache_write_tokens=0, reasoning_tokens=0)


def stopped(calls: Sequence[Row]) -> StopView | None:
    """Was the last call to a model refused or cut because of a budget, a limit or a kill? Retries are calls too."""
    last = next((call for call in reversed(calls) if call["operation"] or call["error_code"] in STOPS), None)
    if last is None or last["error_code"] not in STOPS:
        return None
    return StopView(code=last["error_code"], message=decode_detail(last["detail"]).error_message or None)


def saved(call: Row, book: PriceBook) -> int:
    """Pico-USD between what the tokens cost by list price with caching and without, or what an answer given again had
    cost; 0 where that is not known."""
    if call["usage_source"] == UsageSource.CACHED:
        return decode_detail(call["detail"]).saved
    if not call["cache_read_tokens"] and not call["cache_write_tokens"]:
        return 0
    detail = {name: n for name, n in decode_detail(call["detail"]).usage.items() if "cache" not in name}
    read, written = call["cache_read_tokens"] or 0, call["cache_write_tokens"] or 0
    tokens_in, tokens_out, thought = (call[name] or 0 for name in ("input_tokens", "output_tokens", "reasoning_tokens"))
    model, at = call["model_used"] or call["model_requested"], call["started_at"] / 1e9
    cached = book.price(call["provider"], model, Usage(tokens_in, tokens_out, read, written, thought, detail), at).total
    plain = book.price(call["provider"], model, Usage(tokens_in, tokens_out, 0, 0, thought, detail), at).total
    return plain - cached if plain is not None and cached is not None else 0
