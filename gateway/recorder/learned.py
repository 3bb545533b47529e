"""Learns which model a call needs from records of calls and reports on them: see gateway.policy.selection.

A projection of the journal that keeps its state, as the judge of canaries does. Fits take up to many seconds: `submit`
runs them beside the thread of the loop, and `soon` brings what came of them back into it. While the recorder is down
nothing is learned, and calls are chosen as before.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from gateway.call import Outcome as Ended
from gateway.config.schema import Config
from gateway.journal.record import CallRecord, OutcomeRecord, Record
from gateway.policy.pricing import PriceTable
from gateway.policy.selection import Model
from gateway.policy.selection_learner import Fitted, Learner
from gateway.policy.selection_rules import Terms, terms_of
from gateway.policy.selection_standing import ScopeStanding
from gateway.policy.selection_watch import Entry, Outcome, Result, Watch
from gateway.recorder.facts import UNVERIFIED
from gateway.recorder.learned_scope import Scope, read_labels

MOST_SCOPES = 64
MOST_NEW = 2_000  # calls taken in between two writings (10 s), beside those explored: a sample is enough
REFIT_SECONDS = 60.0  # after which few new labels are learned from, too
CURIOUS = frozenset(("explored", "shadow"))
SCORES = {"success": 1.0, "failure": 0.0}
UNREADABLE = (OSError, ValueError, msgspec.MsgspecError)

_log = logging.getLogger("tollgate.learned")


class Store(Protocol):
    def load(self) -> tuple[list[Entry], dict[str, int]]: ...

    def save(self, changed: Iterable[Entry], reached: Mapping[str, int] | None) -> None: ...

    def put(self, standings: Sequence[ScopeStanding], models: Mapping[str, Model], at: int) -> None: ...


class LearnedDesk:
    """`prices`: those in force. `soon(action)`: have it run in the thread of the loop; `submit(work)`: beside it."""

    def __init__(
        self,
        store: Store,
        prices: Callable[[], PriceTable],
        now: Callable[[], int],
        soon: Callable[[Callable[[], None]], None],
        submit: Callable[[Callable[[], None]], None],
    ) -> None:
        self._store, self._prices, self._now, self._soon, self._submit = store, prices, now, soon, submit
        self._terms: dict[str, Terms] = {}
        self._providers: dict[str, str] = {}
        self._scopes: dict[str, Scope] = {}
        self._watch = Watch()
        self._waiting: list[Callable[[], Callable[[], None]]] = []  # files to be read
        self._busy = False
        self._rests_until = 0
        self._failing = False
        self._dirty = False
        self._models: dict[str, Model] = {}  # not written yet
        self._known: list[Entry] | None
        self._known, self.reached = self._load()

    def configure(self, config: Config) -> None:
        """Learn for these rules from now on. What was learned of others is kept in the file, until they are back."""
        found = [terms for terms in map(terms_of, config.routes) if terms is not None]
        self._providers = {name: one.provider or "" for name, one in config.upstreams.items()}
        new = {terms.learn.id: terms for terms in found}
        if not new:
            self.reached = {}  # so that nothing is read again for nobody
        if new == self._terms:
            return
        if self._known is None:
            self._write(None)
            self._known, _ = self._load()
        entries, self._known = self._known, None
        before, self._terms, self._scopes, self._watch = self._scopes, new, {}, Watch()
        self._watch.restore(entries)
        for id, terms in new.items():
            if terms.learn.per == "rule":
                self._scope(id)  # so that it is shown, and its labelled file is read
        for entry in entries:
            if entry.score >= 0 and (scope := self._scope(entry.call.scope)) is not None:
                scope.learn(entry)
        for name, scope in self._scopes.items():
            if name in before and before[name].terms.arms == scope.terms.arms:
                scope.traffic = before[name].traffic
        self._begin_fit()

    def apply(self, batch: Sequence[Record]) -> None:
        if not self._terms:
            return
        for record in batch:
            if isinstance(record, CallRecord):
                if "learn" in record.notes and (scope := self._scope(record.notes["learn"])) is not None:
                    self._take(record, scope)
            elif isinstance(record, OutcomeRecord):
                score = SCORES.get(record.kind, record.value)
                if score is not None and math.isfinite(score):
                    self._label(self._watch.report(record.run_id, score))
        self._begin_fit()

    def keep(self, reached: Mapping[str, int]) -> None:
        """Write down what is known, as of a position in the journal."""
        if not self._terms:
            return
        self._label(self._watch.settle(self._now()))
        self._begin_fit()
        self._write(reached)

    def close(self, timeout: float) -> None:
        """Nothing is held back."""

    # -- calls and labels -----------------------------------------------------------------------------------------

    def _take(self, record: CallRecord, scope: Scope) -> None:
        arm, attempts = record.notes.get("learn_arm", ""), record.attempts
        if arm not in scope.traffic.by_arm:
            return  # of a configuration before
        scope.traffic.take(record, arm)
        self._dirty = True
        self._take_withheld(record, scope, arm)
        if not attempts or record.outcome != Ended.OK:
            return
        if f"{attempts[-1].upstream}/{attempts[-1].model}" != record.notes.get("route_to"):
            return  # another target answered
        scope.traffic.used(arm, record.usage)
        shadow = record.notes.get("route_why") == "shadow"
        if not shadow:
            scope.traffic.answered(arm, withheld=False)
        if len(self._watch.changed) >= MOST_NEW and record.notes.get("route_why") not in CURIOUS:
            return
        valid, agreed = record.notes.get("learn_valid"), record.notes.get("learn_agreed")
        if shadow and agreed is None:
            return  # nobody can tell
        call = Outcome(
            record.id,
            scope.name,
            arm,
            "" if shadow else record.run_id,
            record.started_at + record.duration_ns,
            record.seen,
            record.request_bytes,
            tuple([use.id for use in record.tool_uses]),
            None if valid is None else valid == "yes",
            None if agreed is None else agreed == "yes",
        )
        self._label(self._watch.end(call, [Result(tool.id, tool.is_error) for tool in record.tools]))

    def _take_withheld(self, record: CallRecord, scope: Scope, arm: str) -> None:
        """An answer that a cascade withheld: its model was not good enough, whatever became of the call or its run."""
        made = [one for one in record.attempts if one.error_code == UNVERIFIED]
        if not made or f"{made[0].upstream}/{made[0].model}" != record.notes.get("route_to"):
            return
        scope.traffic.used(arm, made[0].usage)
        scope.traffic.answered(arm, withheld=True)
        ended = record.started_at + record.duration_ns
        call = Outcome(record.id, scope.name, arm, "", ended, record.seen, record.request_bytes, (), False, None)
        self._label(self._watch.end(call, ()))

    def _label(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            scope = self._scopes.get(entry.call.scope)
            if scope is None:
                continue
            self._dirty = True
            scope.learn(entry)

    def _scope(self, name: str) -> Scope | None:
        scope, terms = self._scopes.get(name), self._terms.get(_id(name))
        if scope is not None or terms is None:
            return scope
        if len(self._scopes) >= MOST_SCOPES:
            return None
        scope = self._scopes[name] = Scope(name, terms)
        if terms.learn.labels is not None:
            self._read(scope, terms.learn.labels)
        self._dirty = True
        return scope

    # -- fits -----------------------------------------------------------------------------------------------------

    def _begin_fit(self) -> None:
        """Nine parts of the time are left to others."""
        if self._busy:
            return
        if self._waiting:
            self._aside(self._waiting.pop(0))
            return
        now = self._now()
        if now < self._rests_until:
            return
        for scope in self._scopes.values():
            learner = scope.learner
            if learner.due or (learner.new > 0 and now / 1e9 - scope.fitted_at > REFIT_SECONDS):
                scope.fitted_at = now / 1e9
                scope.reckon(scope.costs(self._prices(), self._providers, now / 1e9))
                self._aside(self._fit(scope, learner))
                return

    def _aside(self, work: Callable[[], Callable[[], None]]) -> None:
        """Have `work` done beside the loop, and what it returns in it; one at a time."""
        self._busy = True
        began = self._now()

        def ended(action: Callable[[], None]) -> None:
            self._busy = False
            self._rests_until = self._now() + 9 * (self._now() - began)
            action()
            self._begin_fit()

        def run() -> None:
            action: Callable[[], None] = lambda: None  # noqa: E731 - has a type
            try:
                action = work()
            finally:
                self._soon(lambda: ended(action))

        self._submit(run)

    def _fit(self, scope: Scope, learner: Learner) -> Callable[[], Callable[[], None]]:
        work = learner.work()

        def adopt(fitted: Fitted) -> None:
            if self._scopes.get(scope.name) is not scope:
                return  # configured anew meanwhile
            learner.adopt(fitted)
            self._models[scope.name] = fitted.model
            self._write(None)

        def run() -> Callable[[], None]:
            fitted = work.done()
            return lambda: adopt(fitted)

        return run

    # -- the file -------------------------------------------------------------------------------------------------

    def _load(self) -> tuple[list[Entry], dict[str, int]]:
        try:
            return self._store.load()
        except OSError as error:
            _log.error("what was learned of models cannot be read: %s", error)
            return [], {}

    def _write(self, reached: Mapping[str, int] | None) -> None:
        """Calls may be ahead of the position in the journal: what is read again changes nothing."""
        try:
            if self._watch.changed or reached is not None:
                self._store.save(self._watch.changed.values(), reached)
                self._watch.changed.clear()
            if self._dirty or self._models:
                self._put()
        except OSError as error:
            if not self._failing:
                _log.error("what is learned of models cannot be written: %s", error)
            self._failing = True
        else:
            self._failing = False

    def _put(self) -> None:
        now, prices = self._now(), self._prices()
        standings = [one.standing(one.costs(prices, self._providers, now / 1e9)) for one in self._scopes.values()]
        self._store.put(standings, self._models, now)
        self._models, self._dirty = {}, False

    def _read(self, scope: Scope, file: str) -> None:
        """Begin with the labelled prompts of a file."""
        arms = {arm.name: arm.name for arm in scope.terms.arms}
        arms |= {arm.model: arm.name for arm in scope.terms.arms if arm.model is not None}

        def work() -> Callable[[], None]:
            try:
                examples = read_labels(Path(file), arms)
            except UNREADABLE as error:
                _log.error("labels of %s cannot be used: %s", scope.name, error)
                fault = str(error)

                def failed() -> None:
                    scope.fault, self._dirty = fault, True

                return failed
            return lambda: scope.learner.begin(examples)

        self._waiting.append(work)
        self._begin_fit()


def _id(scope: str) -> str:
    return scope.partition("|")[0]
