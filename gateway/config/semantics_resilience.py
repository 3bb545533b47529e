"""What the sections about upstreams that fail must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.problems import Path, Problem
from gateway.config.schema import Config, TimeoutRule, Timeouts

MATCH_CHARS = 200
PATTERNS = ("route", "upstream", "model", "agent")
Rule = TimeoutRule  # of those with patterns
PARTS = ("first_byte", "first_content", "idle")


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that these sections break."""
    for name, upstream in config.upstreams.items():
        yield from _within(("upstreams", name, "timeouts"), upstream.timeouts)
    for index, rule in enumerate(config.timeouts):
        path = ("timeouts", str(index))
        yield from patterns(path, rule)
        yield from _within(path, rule)
        if all(getattr(rule, name) is None for name in Timeouts.__struct_fields__):
            yield Problem(path, reason="states no timeout", hint="name " + ", ".join(Timeouts.__struct_fields__))


def patterns(path: Path, rule: Rule) -> Iterator[Problem]:
    """Names with * as wildcard, each where it is written."""
    for name in PATTERNS:
        pattern = getattr(rule, name)
        if not pattern or len(pattern) > MATCH_CHARS or not pattern.isprintable() or pattern != pattern.strip():
            yield Problem((*path, name), reason=f"must be 1 to {MATCH_CHARS} printable characters without space around")
        elif "**" in pattern:
            yield Problem((*path, name), reason="one * already stands for any characters")


def _within(path: Path, one: Timeouts | TimeoutRule) -> Iterator[Problem]:
    """A part that could never run out, since the whole does before. What was left at its default is not blamed."""
    default = Timeouts()
    if one.total is None:
        return
    for name in PARTS:
        part = getattr(one, name)
        if part is not None and part > one.total and part != getattr(default, name):
            yield Problem((*path, name), reason="is longer than `total`, so it never runs out")
    first = one.first_content
    if one.ping is not None and first is not None and one.ping >= first and first != default.first_content:
        yield Problem((*path, "ping"), reason="is not shorter than `first_content`, so it never comes")
