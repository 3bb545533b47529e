"""How a call goes on more cheaply as a budget runs out: which of the configured steps apply.

Rules
1. The share of a budget is what is *spent* of its limit. What is reserved does not count: it is a worst case, and many
   large ones under way would taper a budget that is hardly used (an alert at 99 % of which 3 % are spent).
2. A step applies from exactly its share on: `at: 0.5` of $10.00 when $5.000000000 are spent, not a nano-dollar before.
   Shares are taken as the decimal numbers that are written, whatever a double makes of them.
3. All steps that are reached hold together, of all budgets: the least effort, the least `max_tokens`; of several models
   the one that stands at the highest share, and at the same share the one of the innermost scope.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from functools import lru_cache

from msgspec import Struct

from gateway.config.schema import TaperStep
from gateway.spend import Level

EFFORTS = ("minimal", "low", "medium")  # from the least


class Taper(Struct, frozen=True):
    """What holds now. `account`: whose step is the furthest, and `share` the `at` of that step; for people to see."""

    effort: str | None = None
    model: str | None = None
    max_tokens: int | None = None
    stop: bool = False
    share: float = 0.0
    account: str = ""


@lru_cache(maxsize=256)
def exact(share: float) -> tuple[int, int]:
    """A share as the decimal number that was written: numerator and denominator."""
    return Fraction(repr(share)).as_integer_ratio()


def reached(level: Level, share: float) -> bool:
    """Is this share of the limit spent?"""
    above, below = exact(share)
    return level.spent * below >= level.limit * above


def taper(levels: Sequence[Level], steps: Iterable[Sequence[TaperStep]]) -> Taper | None:
    """The tightest of all that is reached; None where nothing is. `steps`: those of each level, in the same order,
    from the outermost scope to the innermost, as `policy.limits` gives them."""
    found = list(_reached(levels, steps))
    if not found:
        return None
    efforts = [step.effort for step, _ in found if step.effort]
    caps = [step.max_tokens for step, _ in found if step.max_tokens is not None]
    models = [(step.at, at) for at, (step, _) in enumerate(found) if step.model]
    furthest, account = max(found, key=lambda one: one[0].at)
    return Taper(
        min(efforts, key=EFFORTS.index) if efforts else None,
        found[max(models)[1]][0].model if models else None,
        min(caps) if caps else None,
        any(step.stop for step, _ in found),
        furthest.at,
        account,
    )


def _reached(levels: Sequence[Level], steps: Iterable[Sequence[TaperStep]]) -> Iterator[tuple[TaperStep, str]]:
    for level, of_level in zip(levels, steps, strict=True):
        for step in of_level:
            if reached(level, step.at):
                yield step, level.account
