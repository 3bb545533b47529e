"""From what became of a call to a label: how good the answer was, and how sure that is. Pure.

What people or programs report outweighs every sign. A sign says more when it is bad: that nothing went wrong is little
evidence that an answer was good.
"""

from __future__ import annotations

from msgspec import Struct

REPORTED, INVALID, RETRIED, FAILED_TOOL, QUIET = 1.0, 0.8, 0.4, 0.3, 0.1


class Signs(Struct, frozen=True):
    """What is known of one answer. None: unknown."""

    outcome: float | None = None  # reported for its run, 0 to 1
    valid: bool | None = None  # it kept to the schema that was asked for
    retried: bool = False  # the client asked the same again
    tools: int = 0  # results of tools that it called
    tool_errors: int = 0  # those that failed
    agreed: float | None = None  # how far it says what a stronger model said to the same prompt (paired shadow run)


class Verdict(Struct, frozen=True):
    score: float
    weight: float


def verdict(signs: Signs) -> Verdict | None:
    """The strongest that is known of it; None: nothing at all."""
    if signs.outcome is not None:
        return Verdict(min(1.0, max(0.0, signs.outcome)), REPORTED)
    if signs.agreed is not None:
        return Verdict(min(1.0, max(0.0, signs.agreed)), REPORTED)
    if signs.valid is False:
        return Verdict(0.0, INVALID)
    if signs.retried:
        return Verdict(0.0, RETRIED)
    if signs.tools:
        failed = min(signs.tools, signs.tool_errors) / signs.tools
        return Verdict(1.0 - failed, FAILED_TOOL if failed else QUIET)
    return Verdict(1.0, QUIET) if signs.valid else None
