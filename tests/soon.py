"""Promises about time, on machines that are busy with other things."""

from __future__ import annotations

from collections.abc import Callable


def soon(take: Callable[[int], float], seconds: float, tries: int = 5) -> None:
    """`take(try)` says how long something took: less than `seconds`, once of a few times.

    A busy machine delays some of them; what is too slow by itself delays each.
    """
    taken: list[float] = []
    while len(taken) < tries:
        taken.append(take(len(taken)))
        if taken[-1] < seconds:
            return
    raise AssertionError(f"never within {seconds} s: {taken}")
