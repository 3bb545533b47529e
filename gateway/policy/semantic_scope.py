"""One scope of the semantic cache: what it has learned, what it would serve, and when it stops. Pure.

The caller owns time, chance, entries and calls: it brings the nearest entries of a text, asks `decide`, and reports
with `settle` whether the stored answers would have been right, once a fresh one is there. All of a scope's state is
in here.

Theory of operation
* A guard forbids, the verifier's chance must reach the cut, and the cut comes from evidence alone: a new scope serves
  nothing. The target bounds the share of wrong ones among all hits, and where nearly all are right that leaves room for
  many that are not: so nothing is served that is likely wrong by itself, whatever the others are.
* Every fresh answer teaches: on a miss it is held against the stored answers of the neighbours. Of hits a sample is
  asked for in the shadow; who is least sure is asked for most (Neyman 1934), and each stands for as many as its
  chance says.
* The breaker: when wrong hits exceed the target beyond doubt (lower bound of 95 %), nothing is served and all
  evidence is dropped; what comes back must be earned anew, with more of it each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence

from msgspec import Struct, msgpack, structs

from gateway.policy.semantic_cut import ENOUGH, choose
from gateway.policy.semantic_evidence import Interval, Seen, Tally, wilson
from gateway.policy.semantic_exchanges import Exchanges
from gateway.policy.semantic_guards import exchanged, forbidding, vetoed
from gateway.policy.semantic_learner import Guess, Learned, Learner
from gateway.policy.semantic_lifts import TOLERATED, Count, Held, Lifts, Mates
from gateway.policy.semantic_pair import Around, Rarity, features
from gateway.policy.semantic_prior import DEVIATION, MEAN
from gateway.policy.semantic_text import Said

VERSION = b"tollgate scope 1\n"
SAMPLE = 0.04  # of hits that are verified once enough were
NEIGHBOURS = 16  # that are looked at
COMPARED = 5  # of them, in full
TAUGHT = 3  # of those, by one fresh answer
LEAST_COSINE = 0.45
FLOOR = math.log(3)  # of the cut, as a logit: a chance of 3 in 4
WINDOW = 4000  # candidates that are evidence
REFIT = 50  # labels between two choices of the cut
MOST_BLOCKED = 10_000
FEEDBACK = 20.0  # hits that a reported wrong one stands for
_VOTE = 12.0  # how fast a neighbour's vote fades with its distance
_STRICTER = 8  # times as much evidence after the breaker, at most
_FIRST = 75  # hits that are verified early on, as one in two
_FADE = 0.99  # what a verified hit counts for the breaker after each later one: about 200 of them decide
_PROVEN = 5  # wrong ones without which the breaker stays: it looks again and again, and one may stand for many
_MOST_SAMPLED, _LEAST_OF_SAMPLE = 0.5, 0.8
_EASE = 0.01  # how fast the average of doubts moves


NOTHING = Guess(-30.0, 0.0)  # what is thought of what a guard forbids


class Entry(Struct, frozen=True):
    """A stored answer. `group`: entries with the same one have answers that mean the same."""

    id: int
    said: Said
    group: int


class Near(Struct, frozen=True):
    entry: Entry
    cosine: float


class Candidate(Struct, frozen=True):
    entry: Entry
    cosine: float
    veto: str
    guess: Guess
    dense: Sequence[float]
    words: Sequence[str]
    swapped: frozenset[str]  # words that are not known to be exchanged without harm
    agreed: frozenset[str]  # guards at whose issue neighbours differ that have the same answer
    lifted: Sequence[str] = ()  # guards that would forbid it, and do not hold here


class Decision(Struct, frozen=True):
    """`serve`: the first candidate's answer may be given. `sampled`: ask the upstream nevertheless, in the shadow of
    the hit, and report: it stands for `weight` hits like it."""

    serve: bool
    sampled: bool
    weight: float
    candidates: Sequence[Candidate]  # best first; what guards forbid is last

    @property
    def best(self) -> Candidate | None:
        return self.candidates[0] if self.candidates else None


class Kept(Struct, frozen=True):
    """A scope as `dump` writes it."""

    target: float
    sample: float
    learned: Learned
    rarity: tuple[int, dict[str, int]]
    exchanges: dict[str, tuple[int, int]]
    lifts: tuple[list[tuple[int, str, float, float]], dict[str, Count]]
    cut: float | None  # None: there is none
    counts: tuple[int, int, int, bool, float]
    tallies: tuple[Tally, Tally]
    evidence: list[Seen]
    population: list[float]
    blocked: list[tuple[int, list[str]]]


class Scope:
    """`target`: tolerated share of wrong hits; `sample`: share of hits that is verified once enough were."""

    def __init__(self, target: float, sample: float = SAMPLE, mean: Sequence[float] = MEAN) -> None:
        self.target = target
        self.sample = sample
        self.learner = Learner(mean, DEVIATION)
        self.rarity = Rarity()
        self.exchanges = Exchanges()
        self.lifts = Lifts(target)
        self.cut = math.inf
        self.hits = 0  # answers served by similarity
        self.verified = Tally()  # of all time
        self.recent = Tally()  # since the cut was last earned, the latest most
        self.trips = 0  # of the breaker
        self.tripped = False
        self._evidence: deque[Seen] = deque(maxlen=WINDOW)
        self._population: deque[float] = deque(maxlen=WINDOW)  # logits of all candidates that no guard forbids
        self._blocked: dict[tuple[int, frozenset[str]], None] = {}  # in the order of reports
        self._fresh = 0  # labels since the cut was chosen
        self._doubt = 0.0  # of hits of late, on average

    # -- deciding ---------------------------------------------------------------------------------------------------

    def decide(self, asked: Said, near: Sequence[Near], draw: float) -> Decision:
        """`near`: nearest first. `draw`: a random number of 0 to 1, for the sample."""
        found = self._candidates(asked, near)
        if not found or found[0].veto:
            return Decision(False, False, 1.0, found)
        self._population.append(found[0].guess.logit)
        if found[0].guess.logit < self.cut:
            return Decision(False, False, 1.0, found)
        self.hits += 1
        share = self._share(found[0].guess.chance)
        return Decision(True, draw < share, 1 / share, found)

    def look(self, asked: Said, near: Sequence[Near]) -> Decision:
        """The candidates of a decision that was made before, as they are judged now; nothing is counted."""
        return Decision(True, False, 1.0, self._candidates(asked, near))

    def retarget(self, target: float) -> None:
        """Another share of wrong hits is tolerated: the same evidence, another cut."""
        self.target = target
        self.lifts.limit = TOLERATED * target
        self._watch()
        if not self.tripped:
            self._choose()

    def _share(self, chance: float) -> float:
        """With which probability a hit is verified."""
        doubt = math.sqrt(chance * (1 - chance)) + 1e-3
        self._doubt += max(_EASE, 1 / self.hits) * (doubt - self._doubt)
        early = max(1.0, min(_MOST_SAMPLED, _FIRST / self.hits) / self.sample)
        relative = max(_LEAST_OF_SAMPLE, doubt / self._doubt)
        return min(_MOST_SAMPLED, self.sample * early * relative)

    def _candidates(self, asked: Said, near: Sequence[Near]) -> list[Candidate]:
        near = [one for one in near[:NEIGHBOURS] if one.cosine >= LEAST_COSINE]
        votes = votes_of(near)
        mates = {
            group: Mates([one.entry.said for one in near if one.entry.group == group])
            for group, around in votes.items()
            if around.agreed
        }
        found, free = list[Candidate](), 0
        for place, one in enumerate(near):
            around = structs.replace(votes[one.entry.group], first=place == 0)
            found.append(self._candidate(asked, one, around, mates.get(one.entry.group)))
            free += not found[-1].veto
            if free == COMPARED:
                break
        found.sort(key=_order)
        return found

    def _candidate(self, asked: Said, one: Near, around: Around, mates: Mates | None) -> Candidate:
        said, group = one.entry.said, one.entry.group
        agreed = frozenset[str]() if mates is None else mates.vary(said)
        spared = self.lifts.of(group, agreed)
        veto, swapped, lifted = vetoed(said, asked, spared), frozenset[str](), list[str]()
        if veto:
            return Candidate(one.entry, one.cosine, veto, NOTHING, (), (), swapped, agreed)
        if spared:
            lifted = forbidding(said, asked, spared)
        swapped = self.exchanges.unsure(exchanged(said, asked))
        if swapped:
            if mates is not None and mates.lack(swapped & said.content):
                agreed |= {"exchanged"}
            if self.lifts.lifted(group, "exchanged", "exchanged" in agreed):
                lifted.append("exchanged")
            else:
                veto = "exchanged"
        if not veto and self._blocked and (one.entry.id, asked.content) in self._blocked:
            veto = "blocked"
        words = sorted(said.content ^ asked.content)
        novel = sum([not self.learner.knows(word) for word in words])
        dense = features(said, asked, one.cosine, self.rarity, structs.replace(around, novel=novel, lifted=len(lifted)))
        guess = self.learner.guess(dense, words)
        return Candidate(one.entry, one.cosine, veto, guess, dense, words, swapped, agreed, lifted)

    # -- learning ---------------------------------------------------------------------------------------------------

    def settle(self, decision: Decision, right: Mapping[int, bool]) -> None:
        """`right`: by id of entry, would its answer have been right? Those that were compared with the fresh one."""
        taught, held = 0, list[Held]()
        for place, one in enumerate(decision.candidates):
            label = right.get(one.entry.id)
            if label is None:
                continue
            held += [(one.entry.group, guard, guard in one.agreed, label) for guard in (one.veto, *one.lifted)]
            if not one.dense:
                continue
            self.exchanges.add(one.words, label)
            if taught < TAUGHT:
                if place == 0 and not one.veto:
                    self._judge(decision, one, label)
                self.learner.learn(one.dense, one.words, label)
                taught += 1
        self.lifts.learn(held)
        self._fresh += 1
        if self._fresh >= REFIT:
            self._choose()

    def _judge(self, decision: Decision, one: Candidate, label: bool) -> None:
        self._evidence.append(Seen(one.guess.logit, label))
        if decision.serve:
            self.verified.add(label, decision.weight)
            self.recent.add(label, decision.weight, _FADE)
            if not label:
                self._watch()

    def _watch(self) -> None:
        """The breaker."""
        if self.recent.wrong >= _PROVEN and self.recent.interval.lower > self.target:
            self.trips += 1
            self.tripped = True
            self.cut = math.inf
            self._evidence.clear()
            self._population.clear()
            self.recent = Tally()

    def _choose(self) -> None:
        self._fresh = 0
        enough = ENOUGH * min(_STRICTER, 1 << self.trips)
        self.cut = max(FLOOR, choose(self._evidence, self._population, self.target, enough))
        if self.cut < math.inf:
            self.tripped = False

    def feedback(self, asked: Said, decision: Decision, right: bool) -> None:
        """What someone said of a hit. A wrong one is never served to this text again, and the cut rises at once."""
        best = decision.best
        if best is None:
            return
        self.learner.learn(best.dense, best.words, right)
        self.exchanges.add(best.words, right)
        if not right:
            self._blocked[best.entry.id, asked.content] = None
            while len(self._blocked) > MOST_BLOCKED:
                self._blocked.pop(next(iter(self._blocked)))
            self._evidence.append(Seen(best.guess.logit, False, FEEDBACK))
            self._choose()

    # -- keeping ----------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """All of its state, for `load`."""
        kept = Kept(
            target=self.target,
            sample=self.sample,
            learned=self.learner.state(),
            rarity=(self.rarity.texts, self.rarity.within),
            exchanges=self.exchanges.counts,
            lifts=(self.lifts.state(), self.lifts.scope),
            cut=None if self.cut == math.inf else self.cut,
            counts=(self.hits, self.trips, self._fresh, self.tripped, self._doubt),
            tallies=(self.verified, self.recent),
            evidence=list(self._evidence),
            population=list(self._population),
            blocked=[(entry, sorted(words)) for entry, words in self._blocked],
        )
        return VERSION + msgpack.encode(kept)

    @classmethod
    def load(cls, data: bytes) -> Scope:
        """Raises ValueError for what another version has written, and for what is damaged."""
        if not data.startswith(VERSION):
            raise ValueError("a scope of another version")
        kept = msgpack.decode(data[len(VERSION) :], type=Kept)  # its errors are ValueErrors
        if len(kept.learned.mean) != len(MEAN):
            raise ValueError("a scope of other features")
        scope = cls(kept.target, kept.sample)
        scope.learner.restore(kept.learned)
        scope.rarity = Rarity(*kept.rarity)
        scope.exchanges = Exchanges(kept.exchanges)
        scope.lifts.restore(*kept.lifts)
        scope.cut = math.inf if kept.cut is None else kept.cut
        scope.hits, scope.trips, scope._fresh, scope.tripped, scope._doubt = kept.counts
        scope.verified, scope.recent = kept.tallies
        scope._evidence.extend(kept.evidence)
        scope._population.extend(kept.population)
        scope._blocked = dict.fromkeys([(entry, frozenset(words)) for entry, words in kept.blocked])
        return scope

    @property
    def interval(self) -> Interval:
        """Of the share of wrong hits among those served by similarity, of 95 %."""
        return self.verified.interval if self.verified.count else wilson(0, 0)


def _order(one: Candidate) -> tuple[bool, float]:
    return bool(one.veto), -one.guess.logit


def votes_of(near: Sequence[Near]) -> dict[int, Around]:
    """By group of answers."""
    weights: dict[int, float] = {}
    best: dict[int, float] = {}
    members: dict[int, int] = {}
    for one in near:
        group = one.entry.group
        weights[group] = weights.get(group, 0.0) + math.exp(_VOTE * (one.cosine - 1))
        best.setdefault(group, one.cosine)
        members[group] = members.get(group, 0) + 1
    total = sum(weights.values())
    found = {}
    for group, weight in weights.items():
        other = max([cosine for name, cosine in best.items() if name != group], default=LEAST_COSINE)
        found[group] = Around(weight / total, best[group] - other, members[group], len(best) == 1, False)
    return found
