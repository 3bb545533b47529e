"""The routes of what happens now: a summary, who spends, and both with changed runs as server-sent events.

Events
1. `summary` comes at once, and then every second in which anything changed; `runs` has the runs with new calls. An
   event stands for itself: whoever missed one is set right by the next, or told to ask again (`more`).
2. One look a second serves every listener; while there is none, nothing is looked at.
3. A listener that does not read fast enough is cut off: the page comes back by itself. A change of the admin token
   ends all streams.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final, cast

import msgspec
from aiohttp import web

from gateway import __version__
from gateway.admin import live_present, params, present
from gateway.admin.breakers import READ, standing
from gateway.admin.budgets import account_view
from gateway.admin.live_views import ChangedRuns, SpenderList, SummaryView
from gateway.admin.problems import ApiError
from gateway.admin.state import STATE, AdminState, answer
from gateway.admin.tally import DIMENSIONS, Figures, Tally
from gateway.admin.tally_past import RANGES, Past, Range, stretches
from gateway.errors import GatewayError
from gateway.policy import conditions
from gateway.policy.controls import LOOP_BREAKER, Standing
from gateway.policy.spend_pace import HOUR, MINUTE, Sums, burns, total, within
from gateway.policy.window import Window
from gateway.recorder.ledger_rows import decode_detail
from gateway.recorder.ledger_spend import SpendReader
from gateway.spend import Rule
from gateway.spend import Standing as Spent

STREAMS = 64
BEHIND = 8  # events that a listener may be behind
QUIET = 15.0  # seconds without an event, before a sign of life
CHANGED = 200
SLOW_SECONDS = 5.0  # between two looks at budgets
BUDGETS = 500  # accounts of each scope
STOPPED = 20
_SCOPES: Final = ("global|", "team:", "key:", "agent:", "model:", "upstream:")
_KEPT = frozenset((Rule.TOTAL, Rule.ROLLING))


class Live:
    """What all listeners share. Made in the event loop, once for an application."""

    def __init__(self, state: AdminState) -> None:
        self._state = state
        self._spend = SpendReader(state.ledger)
        self.tally = Tally(self._spend, state.now, lambda: state.config().spending.timezone)
        self._past = Past(self._spend)
        self.listeners: set[asyncio.Queue[bytes]] = set()
        self._task: asyncio.Task[None] | None = None
        self._used: tuple[float, list[conditions.Used]] = (float("-inf"), [])
        self._row = 0
        self._told = b""

    # -- a look, in a thread ---------------------------------------------------------------------------------------

    def summary(self) -> SummaryView:
        """Raises LedgerUnavailable."""
        return self.tally.look(self._summed)

    def spenders(self, by: live_present.By, over: Range, limit: int) -> SpenderList:
        """Raises LedgerUnavailable."""

        def today(found: Figures) -> tuple[int, int, Window, dict[str, Sums]]:
            return found.now, found.row, found.day, {name: total((part,)) for name, part in found.today[by].items()}

        now, row, day, names = self.tally.look(today)
        wanted = stretches(over, now, day, self._state.config().spending.timezone)
        read = self._past.add(by, wanted, row, names)
        since = wanted[read - 1][0] if read else day.since
        return live_present.spender_list(by, over, names, since, limit, whole=read == len(wanted))

    def _summed(self, found: Figures) -> SummaryView:
        state, now = self._state, found.now
        readiness, gauges, zone = state.readiness(), state.condition(), state.config().spending.timezone
        objective = live_present.objective_of(state.config().slos)
        burning = burns(found.minutes, now, objective)
        hour = within(found.minutes, now - HOUR, now + MINUTE)
        facts = conditions.Facts(
            workers_ready=readiness.workers.ready,
            workers=readiness.workers.total,
            draining=readiness.draining,
            ledger=readiness.ledger == "ok",
            lag_seconds=readiness.lag_seconds,
            lost=gauges.lost,
            reload_ok=gauges.reload_ok,
            reload_message=gauges.reload_message,
            needs_restart=gauges.needs_restart,
            breakers=self._broken(),
            budgets=self._budgets(),
            stopped=self._stopped(now),
            hour=hour,
            burns=burning,
        )
        return SummaryView(
            at=present.moment(now),
            version=__version__,
            timezone=zone,
            listen=state.config().listen,
            **live_present.spending(found),
            today=live_present.sums_view(within(found.minutes, found.day.since, found.day.until)),
            last_hour=live_present.sums_view(hour),
            calls_per_second=within(found.minutes, now - 2 * MINUTE, now + MINUTE).calls / 120,
            inflight=gauges.inflight,
            workers_ready=readiness.workers.ready,
            workers=readiness.workers.total,
            lag_seconds=round(readiness.lag_seconds, 1),
            slo=live_present.slo(found, burning, objective),
            conditions=[live_present.condition(one) for one in conditions.conditions(facts)],
            minutes=live_present.series(found.minutes, now, 1, 60),
            tens=live_present.series(found.minutes, now, 10, 144),
            days=live_present.days(found, zone),
            agents=live_present.spenders(found.today["agent"], live_present.TOP),
            models=live_present.spenders(found.today["model"], live_present.TOP),
        )

    def _broken(self) -> list[conditions.Broken]:
        try:
            forced = self._state.decisions.forced()
        except OSError:
            forced = []
        return [
            conditions.Broken(one.name, one.state, one.forced or "", one.why or "", _nanos(one.since))
            for one in standing(self._state.ledger.breakers(READ), forced)
        ]

    def _budgets(self) -> list[conditions.Used]:
        """Of scopes above runs; looked at every few seconds, and as they were while the store is away."""
        at, known = self._used
        if self._state.monotonic() - at >= SLOW_SECONDS:
            with contextlib.suppress(GatewayError):
                known = [
                    _used(one)
                    for prefix in _SCOPES
                    for one in self._state.budgets.under(prefix, BUDGETS, over=False)
                    if one.rule in _KEPT and one.limit > 0 and one.spent + one.reserved >= conditions.NEARLY * one.limit
                ]
            self._used = self._state.monotonic(), known
        return known

    def _stopped(self, now: int) -> list[conditions.Stopped]:
        """What people stopped, and runs that were stopped by themselves within the hour."""
        try:
            kept = self._state.decisions.stopped()
        except OSError:
            kept = []
        people = [one for one in kept if one.who != LOOP_BREAKER][:STOPPED]
        loops = [one for one in kept if one.who == LOOP_BREAKER and one.killed_at >= now - HOUR][:STOPPED]
        found = [conditions.Stopped(str(one.scope), one.value, _why(one), one.killed_at) for one in (*people, *loops)]
        named = {(one.scope, one.value) for one in found}
        for row in self._spend.stopped(now - HOUR, STOPPED):
            if ("run", row["run_id"]) not in named:
                text = decode_detail(row["detail"]).error_message or "Stopped by the gateway."
                found.append(conditions.Stopped("run", row["run_id"], text, row["at"]))
        return found

    def _changes(self) -> list[bytes]:
        """The events of this second. Raises LedgerUnavailable."""
        summary = self.summary()
        last = self._spend.last()
        after, self._row = min(self._row, last), last
        touched, known = self._state.touched, len(self._state.touched)
        ids = [touched.pop() for _ in range(known)]
        if last > after:
            ids += self._spend.changed(after, last, CHANGED + 1)
        events = [event("runs", self._runs(list(dict.fromkeys(ids))))] if ids else []
        said = msgspec.json.encode(msgspec.structs.replace(summary, at=""))
        if said != self._told:
            self._told = said
            events.insert(0, event("summary", summary))
        return events

    def _runs(self, ids: list[str]) -> ChangedRuns:
        ledger = self._state.ledger
        rows = [row for id in ids[:CHANGED] if (row := ledger.run(id)) is not None]
        runs = [present.run(row, ledger.agents(row["run_id"])) for row in rows]
        return ChangedRuns(runs=runs, more=len(ids) > CHANGED)

    # -- listeners, in the event loop ------------------------------------------------------------------------------

    async def listen(self) -> AsyncIterator[bytes]:
        """Events, and signs of life. Raises ApiError where there are too many listeners, LedgerUnavailable."""
        if len(self.listeners) >= STREAMS:
            raise ApiError(503, "too_many_streams", f"{STREAMS} listen already", headers={"Retry-After": "5"})
        queue: asyncio.Queue[bytes] = asyncio.Queue(BEHIND)
        token = self._state.token()
        if not self.listeners:
            self._state.touched.clear()
            self._row = await self._state.ask(self._spend.last)
        self.listeners.add(queue)
        try:
            yield event("summary", await self._state.ask(self.summary))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
            while queue in self.listeners:
                try:
                    one = await asyncio.wait_for(queue.get(), QUIET)
                except TimeoutError:
                    one = b": still here\n\n"
                if self._state.token() != token:
                    break
                yield one
        finally:
            self.listeners.discard(queue)

    async def _run(self) -> None:
        while self.listeners:
            await asyncio.sleep(self._state.pulse)
            try:
                events = await self._state.ask(self._changes)
            except GatewayError as error:
                events = [event("trouble", {"code": error.code, "detail": error.message})]
                self._told = b""
            for queue in list(self.listeners):
                for each in events:
                    self._offer(queue, each)

    def _offer(self, queue: asyncio.Queue[bytes], one: bytes) -> None:
        try:
            queue.put_nowait(one)
        except asyncio.QueueFull:
            self.listeners.discard(queue)

    async def close(self) -> None:
        """End every stream."""
        self.listeners.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


LIVE = web.AppKey("live", Live)


def event(name: str, value: object) -> bytes:
    """As the standard of server-sent events has it; JSON has no line ends."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))


def _why(one: Standing) -> str:
    who = "the loop breaker" if one.who == LOOP_BREAKER else "hand"
    return f"Stopped by {who}: {(one.reason or 'no reason given').removesuffix('.')}."


def _nanos(since: str | None) -> int:
    return (params.moment({"since": since}, "since") or 0) if since else 0


def _used(one: Spent) -> conditions.Used:
    view = account_view(one)
    unit = "USD" if view.unit == "usd" else view.unit
    text = f"{view.spent + view.reserved:,.6g} of {view.limit:,.6g} {unit} per {view.per}"
    return conditions.Used(one.account, (one.spent + one.reserved) / one.limit, text)


async def live_summary(request: web.Request) -> web.Response:
    state = request.app[STATE]
    params.given(request, ())
    return answer(await state.ask(request.app[LIVE].summary))


async def spenders(request: web.Request) -> web.Response:
    state, live = request.app[STATE], request.app[LIVE]
    values = params.given(request, ("by", "range", "limit"))
    limit = params.limit(values)
    kind = cast(live_present.By, params.choice(values, "by", DIMENSIONS))
    span = cast(Range, params.choice(values, "range", tuple(RANGES)))
    return answer(await state.ask(lambda: live.spenders(kind, span, limit)))


async def live_events(request: web.Request) -> web.StreamResponse:
    params.given(request, ())
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
    if request.method == "HEAD":
        await response.prepare(request)
        return response
    stream = request.app[LIVE].listen()
    try:
        first = await anext(stream)  # what is wrong is a problem, as long as nothing was sent
        await response.prepare(request)
        await response.write(first)
        async for one in stream:
            await response.write(one)
    except ConnectionError:
        pass  # the listener left
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
    return response
