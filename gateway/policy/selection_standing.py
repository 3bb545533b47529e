"""How a scope of learned choices stands: what people are shown of it."""

from __future__ import annotations

from msgspec import Struct


class ArmStanding(Struct, frozen=True):
    """One model of a scope."""

    target: str
    labels: float
    score: float | None  # mean of its labels
    cost: float | None  # US dollars of a usual call; None: it has no price
    calls: int  # that took it, since the recorder began
    withheld: float = 0.0  # share of its answers in whose stead a cascade asked the next dearer one


class ScopeStanding(Struct, frozen=True):
    """How a scope stands. What is expected is not said before there is enough to say it."""

    scope: str
    labels: float
    enough: int
    ready: bool
    arms: tuple[ArmStanding, ...]
    goal: dict[str, float]
    why: dict[str, int]  # calls by how they were decided, since the recorder began
    weight: float | None = None  # of cost
    best: str | None = None  # the single model that is best
    quality: float | None = None  # expected, as a share of that one's
    cost: float | None = None
    fault: str = ""  # of the labelled file
