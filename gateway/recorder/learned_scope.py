"""One scope of learned choices: its labels, what its calls use, and the labelled file that it begins with."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from gateway.call import Usage
from gateway.journal.record import CallRecord
from gateway.policy.pricing import PriceTable
from gateway.policy.selection import ENOUGH, KNOWN
from gateway.policy.selection_cascade import rises_of, with_next
from gateway.policy.selection_features import features
from gateway.policy.selection_learner import KEPT, Example, Learner
from gateway.policy.selection_rules import Terms, goal_of, stated_goal
from gateway.policy.selection_standing import ArmStanding, ScopeStanding
from gateway.policy.selection_watch import Entry
from gateway.policy.selection_wire import NotFeatures, decode

USUAL = Usage(1_000, 300)  # tokens of a call, before any was seen
SPAN = 5_000  # calls that means are taken over
DAY = 86_400 * 10**9
LEAST_SPAN = 600 * 10**9  # of calls, before their rate says anything


class _Line(Struct, frozen=True):
    prompt: str
    scores: dict[str, Annotated[float, Meta(ge=0, le=1)]]


class Mean:
    """Of the latest `SPAN` or so."""

    __slots__ = ("count", "value")

    def __init__(self, value: float) -> None:
        self.value, self.count = value, 0

    def take(self, value: float) -> None:
        self.count = min(SPAN, self.count + 1)
        self.value += (value - self.value) / self.count


class Traffic:
    """What calls of a scope use, and how many there are: what its models cost."""

    def __init__(self, arms: Sequence[str]) -> None:
        self.inputs, self.outputs = Mean(USUAL.input_tokens), Mean(USUAL.output_tokens)
        self.by_arm = {arm: Mean(0.0) for arm in arms}
        self._withheld = {arm: Mean(0.0) for arm in arms}
        self.places: dict[str, tuple[str, str]] = {}  # arm -> provider, model
        self.calls: Counter[str] = Counter()
        self.why: Counter[str] = Counter()
        self._began = self._last = 0
        self._count = 0.0

    def take(self, record: CallRecord, arm: str) -> None:
        self.calls[arm] += 1
        self.why[record.notes.get("route_why", "")] += 1
        at = record.started_at
        self._began = self._began or at
        self._last = max(self._last, at)
        self._count += 1
        if self._last - self._began > 2 * DAY:
            self._began, self._count = self._last - (self._last - self._began) // 2, self._count / 2
        for attempt in record.attempts:
            if f"{attempt.upstream}/{attempt.model}" == record.notes.get("route_to"):
                self.places[arm] = (attempt.provider, attempt.model)

    def used(self, arm: str, usage: Usage | None) -> None:
        if usage is not None and usage.output_tokens:
            self.inputs.take(usage.input_tokens)
            self.outputs.take(usage.output_tokens)
            self.by_arm[arm].take(usage.output_tokens)

    def answered(self, arm: str, *, withheld: bool) -> None:
        """Was its answer passed on, or the next target of a cascade asked?"""
        self._withheld[arm].take(float(withheld))

    def withheld(self, arm: str) -> float:
        """Share of its answers; a few say little."""
        mean = self._withheld[arm]
        return mean.value * mean.count / (mean.count + 20)

    def usual(self, arm: str) -> Usage:
        """Of a call to this model: some of its own outputs weigh as much as those of all."""
        own = self.by_arm[arm]
        share = own.count / (own.count + 20)
        return Usage(round(self.inputs.value), round(share * own.value + (1 - share) * self.outputs.value))

    @property
    def per_day(self) -> float | None:
        span = self._last - self._began
        return self._count * DAY / span if span >= LEAST_SPAN else None


class Scope:
    """What is known of one scope."""

    def __init__(self, name: str, terms: Terms) -> None:
        self.name, self.terms = name, terms
        arms = [arm.name for arm in terms.arms]
        self.learner = Learner(arms, [1.0] * len(arms), goal_of(terms.learn))
        self.traffic = Traffic(arms)
        self.fitted_at = 0.0
        self.fault = ""

    def learn(self, entry: Entry) -> None:
        """Take its label in, or what has become of it."""
        if entry.label is not None:
            self.learner.amend(entry.label, entry.score, entry.weight)
            return
        try:
            seen = decode(entry.call.seen)
        except NotFeatures:
            return
        scores = {entry.call.arm: entry.score}
        if entry.call.agreed is not None and entry.reported is None:
            scores = self._beside_first(entry)
        labels = self.learner.take(Example(seen, scores, entry.weight))
        entry.label = labels[-1] if labels else None

    def _beside_first(self, entry: Entry) -> dict[str, float]:
        """Who says what the first target said is as good as that: as good as it is known to be, and taken for perfect
        as long as nothing is known."""
        learner = self.learner
        mean = learner.means[0]
        if learner.counts[0] >= KNOWN and mean is not None:
            return {entry.call.arm: entry.score * mean}
        return {self.terms.arms[0].name: 1.0, entry.call.arm: entry.score}

    def costs(self, prices: PriceTable, providers: Mapping[str, str], at: float) -> list[float | None]:
        """US dollars of a usual call of each model; None: it has no price."""
        found = []
        for arm in self.terms.arms:
            provider, model = self.traffic.places.get(
                arm.name, (providers.get(arm.upstream or "", ""), arm.model or "")
            )
            total = prices.price(provider, model, self.traffic.usual(arm.name), at).total
            found.append(total / 1e12 if total is not None else None)
        return found

    def reckon(self, costs: Sequence[float | None]) -> None:
        """Put prices and goal before the learner: a model without a price counts as the dearest."""
        known = [cost for cost in costs if cost is not None]
        dearest = max(known, default=1.0)
        filled = [cost if cost is not None else dearest for cost in costs]
        rises = rises_of(filled, self.withheld) if self.terms.cascade else ()
        self.learner.price(filled, rises)
        budget, rate = self.terms.learn.usd_per_day, self.traffic.per_day
        share = None
        if budget is not None and rate and known:
            arms = [arm.name for arm in self.terms.arms]
            best = self.learner.fitted.best
            single = with_next(filled, rises)[arms.index(best)] if best in arms else dearest
            share = budget / (rate * single or math.inf)
        self.learner.goal = goal_of(self.terms.learn, share)

    @property
    def withheld(self) -> list[float]:
        return [self.traffic.withheld(arm.name) for arm in self.terms.arms]

    def standing(self, costs: Sequence[float | None]) -> ScopeStanding:
        learner, fitted, traffic = self.learner, self.learner.fitted, self.traffic
        ready = fitted.model.ready
        rows = zip(self.terms.arms, learner.counts, learner.means, costs, self.withheld, strict=True)
        return ScopeStanding(
            scope=self.name,
            labels=round(learner.labels, 2),
            enough=ENOUGH,
            ready=ready,
            arms=tuple(
                [
                    ArmStanding(arm.name, round(labels, 2), mean, cost, traffic.calls[arm.name], round(withheld, 4))
                    for arm, labels, mean, cost, withheld in rows
                ]
            ),
            goal=dict(stated_goal(self.terms.learn)),
            why=dict(traffic.why),
            weight=fitted.model.weight if ready else None,
            best=fitted.best if ready else None,
            quality=fitted.quality if ready else None,
            cost=fitted.cost if ready else None,
            fault=self.fault,
        )


def read_labels(path: Path, arms: Mapping[str, str]) -> list[Example]:
    """The latest `KEPT` lines of the file; `arms`: how its models are named here. Raises OSError or ValueError."""
    decoder = msgspec.json.Decoder(_Line)
    found: list[Example] = []
    for number, text in enumerate(path.read_bytes().removeprefix(BOM_UTF8).splitlines(), 1):
        if not text.strip():
            continue
        try:
            line = decoder.decode(text)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{number}: {error}") from None
        scores = {arms[model]: score for model, score in line.scores.items() if model in arms}
        if scores:
            found.append(Example(features(line.prompt), scores))
    if not found:
        raise ValueError(f"{path} has no score of any of these: {', '.join(sorted(arms))}")
    return found[-KEPT:]
