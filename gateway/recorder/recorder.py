"""The parts of the recorder, put together: journal in; ledger, metrics, traces, logs and the admin API out.

Three kinds of threads: the event loop (admin API, the recorder's own journal), the loop that follows the journal, and a
few for queries and exports.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from aiohttp import web

from gateway.admin.app import build
from gateway.admin.state import AdminState, Gauges
from gateway.admin.views import Readiness, WorkersView
from gateway.config import check_semantic, places
from gateway.config.schema import Config
from gateway.journal.append import JournalWriter
from gateway.journal.inflight import read_gauges
from gateway.journal.read import JournalReader
from gateway.journal.segment import listing
from gateway.policy.canary import Decision
from gateway.policy.pricing import PriceTable
from gateway.prices import load as load_prices
from gateway.prices.catalogue import ensure_compiled
from gateway.process.control import (
    Configure,
    Consumed,
    Control,
    Status,
)
from gateway.recorder import (
    budget_gauges,
    bulkhead_gauges,
    cache_gauges,
    process_gauges,
    routing_gauges,
)
from gateway.recorder.beside import Beside
from gateway.recorder.budget_gauges import BudgetGauges
from gateway.recorder.canaries import EVENTS, CanaryJudge, plans_of
from gateway.recorder.keep import SnapshotFile
from gateway.recorder.learned import LearnedDesk
from gateway.recorder.ledger import Ledger
from gateway.recorder.ledger_read import LedgerReader
from gateway.recorder.loop import Counted, Loop
from gateway.recorder.matcher_gauges import MatcherGauges
from gateway.recorder.metrics_store import Gauge
from gateway.recorder.projection import Positions
from gateway.recorder.retention import Retention
from gateway.recorder.telemetry import Projections, projections
from gateway.stores.budget_desk import desk
from gateway.stores.controls_exchange import Exchange
from gateway.stores.late import cache_desk
from gateway.stores.matcher_desk import MatcherDesk
from gateway.stores.redis_controls import RedisControls
from gateway.stores.sqlite_canaries import SqliteCanaries
from gateway.stores.sqlite_controls import SqliteDecisions
from gateway.stores.sqlite_keys import SqliteKeyStore
from gateway.stores.sqlite_learned import SqliteLearned

WRITER = "rec"
GONE_SECONDS = 3.0  # to end in, where the supervisor is gone

_log = logging.getLogger("tollgate.recorder")


class Recorder:
    """All parts of the process. Raises OSError or ValueError for a configuration that cannot be put into force."""

    def __init__(self, configure: Configure) -> None:
        self._config = configure.config
        self._inflight = Path(configure.inflight)
        self._journal_directory = Path(configure.journal)
        self._status: Status | None = None
        self._draining = False
        self._events = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._events.create_future()  # nothing follows the journal any more
        self._begun: asyncio.Future[None] = self._events.create_future()
        self.control: Control | None = None
        state, ledger = Path(configure.state), places.ledger(configure.config)
        self._budgets = desk(configure.config.spending, state)
        self._budget_gauges = BudgetGauges(self._budgets.in_money, time.monotonic)
        self._cache = cache_desk(configure.config)
        self._matcher = MatcherDesk(places.matcher_socket(configure.config))
        self._matcher_gauges = MatcherGauges(self._matcher.state, time.monotonic)
        self._canaries = SqliteCanaries(places.canaries(configure.config))
        self._catalogue = ensure_compiled(state)
        self.prices = load_prices.load(self._catalogue, self._config.prices, self._config.upstreams)
        self._snapshots = SnapshotFile(state / "metrics.snapshot")
        self.telemetry = self._project(self._config, self.prices)
        reached = self._snapshots.restore(self.telemetry.metrics)
        self.writer = JournalWriter(self._journal_directory, WRITER, self._config.journal)
        self._ledger = Ledger(ledger)
        self._decisions = SqliteDecisions(places.controls(configure.config))
        self._keys = SqliteKeyStore(places.keys(configure.config), places.pepper(configure.config), time.time_ns)
        self.exchange: RedisControls | None = None  # with other machines; changes with a restart only
        spending = configure.config.spending
        if spending.redis:
            self.exchange = RedisControls(spending.redis, spending.prefix, Exchange(self._decisions), time.time_ns)
        self._judge = self._new_judge()
        self._beside = Beside("learner")
        self._learned = SqliteLearned(places.learned(configure.config))
        judged = Counted(self._judge, self._canaries.reached or reached, self._judge.keep)
        self._retention = Retention(self._ledger, self._config.journal)
        self.loop = Loop(
            lambda positions: JournalReader(self._journal_directory, positions),
            self._ledger,
            [self._counted(self.telemetry, reached), judged],
            self.telemetry.sinks,
            tidy=self._tidy,
        )
        beside, soon = self._beside.submit, self.loop.between_batches
        self._learner = learner = LearnedDesk(self._learned, lambda: self.prices, time.time_ns, soon, beside)
        learner.configure(configure.config)
        self.loop.counted = [*self.loop.counted, Counted(learner, learner.reached or reached, learner.keep)]
        self.reader = LedgerReader(ledger, damaged=self.loop.report_damage)
        self._thread = threading.Thread(target=self._follow, name="recorder", daemon=True)

    async def start(self) -> None:
        """Begin to follow the journal; returns once there is a ledger (or it is known that there can be none)."""
        self._thread.start()
        await asyncio.wait({self._begun, self.ended}, return_when=asyncio.FIRST_COMPLETED)

    def admin(self) -> web.Application:
        return build(
            AdminState(
                ledger=self.reader,
                metrics=self,
                prices=lambda: self.prices,
                readiness=self.readiness,
                append=lambda record: self.writer.append_record(record, wait=False),
                event=lambda kind, detail: self.writer.append_event(kind, **detail),
                decisions=self._decisions,
                keys=self._keys,
                budgets=self._budgets,
                cache=self._cache,
                matcher=self._matcher,
                config=lambda: self._config,
                gauges=lambda: read_gauges(self._inflight),
                refused=lambda: self.telemetry.metrics.counted("tollgate_bulkhead_refused"),
                canaries=self._canaries.standings,
                condition=self.condition,
                learned=self._learned.standings,
                in_force=self.in_force,
                caught_up_at=lambda: self.loop.caught_up_at,
                token=lambda: self._config.admin_token,
                now=time.time_ns,
                new_id=lambda: f"out_{uuid.uuid4().hex}",
            )
        )

    def render(self, accept: str) -> tuple[bytes, str]:
        return self.telemetry.metrics.render(accept)

    def take(self, status: Status) -> None:
        self._status = status

    def drain(self) -> None:
        """From now on not ready."""
        self._draining = True

    def readiness(self) -> Readiness:
        status, draining = self._status, self._draining
        workers = status.workers if status is not None else ()
        return Readiness(
            ready=status is not None and status.ready and not draining,
            draining=draining or (status is not None and status.draining),
            workers=WorkersView(ready=sum(worker.ready for worker in workers), total=len(workers)),
            ledger="ok" if self.loop.ledger_attached else "unavailable",
            lag_seconds=self.loop.behind_ns / 1e9,
        )

    def condition(self) -> Gauges:
        found, status = list(read_gauges(self._inflight).values()), self._status
        names = ("inflight_requests", "journal_lost_pending")
        inflight, lost = (round(sum(gauges.get(name, 0.0) for gauges in found)) for name in names)
        if status is None:
            return Gauges(inflight, lost)
        return Gauges(inflight, lost, status.reload_ok, status.reload_message, status.needs_restart)

    def in_force(self, revision: int) -> bool:
        """Has every worker taken in what was decided up to this revision? Those that start later begin with it."""
        found = [gauges.get("controls_revision") for gauges in read_gauges(self._inflight).values()]
        workers = [known for known in found if known is not None]
        return bool(workers) and min(workers) >= revision

    async def reconfigure(self, config: Config) -> None:
        """Put another configuration into force, as far as it can be without a restart. Raises OSError or ValueError."""
        prices = self.prices
        if (config.prices, config.upstreams) != (self._config.prices, self._config.upstreams):
            prices = await asyncio.to_thread(load_prices.load, self._catalogue, config.prices, config.upstreams)
        if _telemetry_differs(config, self._config):
            await self._replace_telemetry(await asyncio.to_thread(self._project, config, prices))
        self.prices = prices
        self.loop.between_batches(lambda: self._judge.configure(plans_of(config)))
        self.loop.between_batches(lambda: self._learner.configure(config))
        self._retention.settings = config.journal
        self.writer.configure(config.journal)
        self._config = config

    async def close(self, seconds: float) -> None:
        """Read what is left, flush everything; in `seconds` at most."""
        deadline = time.monotonic() + seconds
        self.loop.stop(seconds * 0.4)
        await asyncio.to_thread(self._thread.join, seconds * 0.5)
        self.reader.close()
        self._beside.close()
        self._budgets.close()
        if self.exchange is not None:
            await self.exchange.close()
        await asyncio.to_thread(self.telemetry.close, max(0.1, deadline - time.monotonic() - 0.2))
        self.writer.close()

    # -- the thread of the loop -----------------------------------------------------------------------------------

    def _follow(self) -> None:
        try:
            self.loop.turn()
            self._call(lambda: self._begun.set_result(None))
            self.loop.run()
        finally:  # whatever ends it: a recorder that does not record must not stay
            self._call(lambda: None if self.ended.done() else self.ended.set_result(None))

    def _tidy(self, committed: Positions) -> None:
        self._retention([segment.name for segment in listing(self._journal_directory)])
        message = Consumed(dict(committed))
        self._call(lambda: self.control.send(message) if self.control is not None else None)

    def _call(self, action: Callable[[], object]) -> None:
        """Run `action` in the event loop, if that still runs."""
        with contextlib.suppress(RuntimeError):
            self._events.call_soon_threadsafe(action)

    # -- telemetry ------------------------------------------------------------------------------------------------

    def _project(self, config: Config, prices: PriceTable) -> Projections:
        return projections(
            config.telemetry,
            self._gauges,
            time.time,
            os.environ,
            models=[*config.aliases, *config.prices.models],
            knows=prices.knows,
            run_idle_seconds=config.identity.run_idle_seconds,
        )

    def _counted(self, telemetry: Projections, reached: Positions) -> Counted:
        metrics = telemetry.metrics
        return Counted(metrics, reached, lambda positions: self._snapshots.save(metrics, positions))

    async def _replace_telemetry(self, new: Projections) -> None:
        """Between two batches, so that no record is missed or counted twice."""
        done, old = asyncio.Event(), self.telemetry

        def swap() -> None:
            new.metrics.restore(old.metrics.snapshot())
            first, *others = self.loop.counted
            self.loop.counted = [self._counted(new, first.feed.reached), *others]
            self.loop.delivered = new.sinks
            self.telemetry = new
            self._call(done.set)

        self.loop.between_batches(swap)
        await done.wait()
        await asyncio.to_thread(old.close, GONE_SECONDS)

    def _new_judge(self) -> CanaryJudge:
        """Of canaries; what it decides becomes an event of the journal, with its evidence."""

        def told(decision: Decision) -> None:
            _log.warning("canary %s: %s (%s)", decision.canary, decision.state, decision.reason)
            self._call(lambda: self.writer.append_event(EVENTS[decision.state], **decision.facts()))

        judge = CanaryJudge(self._canaries, self._canaries.load(), told, time.time_ns, _log.error)
        judge.configure(plans_of(self._config))
        return judge

    def _gauges(self) -> Mapping[str, Gauge]:
        """What is not in the records: asked at every scrape."""
        found = list(read_gauges(self._inflight).values())
        return {
            **process_gauges.workers(found),
            **bulkhead_gauges.workers(found, tuple(self._config.bulkheads)),
            **process_gauges.configured(self._status),
            **budget_gauges.workers(found),
            **budget_gauges.keys(self._keys.listed, time.time_ns()),
            **cache_gauges.read(self._cache.totals, time.time_ns()),
            **cache_gauges.workers(found),
            **self._matcher_gauges.read(check_semantic.active(self._config), self._config.telemetry.label_limit),
            **self._budget_gauges.read(self._config.telemetry.label_limit),
            **routing_gauges.canaries(self._canaries.standings, self._config.telemetry.label_limit),
            **routing_gauges.learned(self._learned.standings, self._config.telemetry.label_limit),
            "tollgate_journal_lag_seconds": self.loop.behind_ns / 1e9,
            "tollgate_journal_lag_bytes": float(self.loop.lag_bytes()),
        }


def _telemetry_differs(new: Config, old: Config) -> bool:
    return (new.telemetry, new.aliases, new.prices, new.identity) != (
        old.telemetry, old.aliases, old.prices, old.identity,
    )  # fmt: skip
