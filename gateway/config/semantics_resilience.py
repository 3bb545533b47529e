"""What the sections about upstreams that fail must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config.patterns import matches
from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config, Fallback, Goal, Hedging, TimeoutRule, Timeouts
from gateway.config.schema_routing import Route

MATCH_CHARS = 200
UNTRANSLATED = frozenset(("bedrock", "cohere", "ollama", "opaque"))  # dialects that only their own kind can answer for
PATTERNS = ("route", "upstream", "model", "agent")
Rule = TimeoutRule | Fallback | Hedging
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
    if config.retries.base > config.retries.longest:
        yield Problem(("retries", "base"), reason="is longer than `longest`")
    if config.breakers.pause > config.breakers.longest:
        yield Problem(("breakers", "pause"), reason="is longer than `longest`")
    yield from patterns(("hedging",), config.hedging)
    for index, fallback in enumerate(config.fallbacks):
        path = ("fallbacks", str(index))
        yield from patterns(path, fallback)
        yield from _goals(path, fallback, config)


def goal_of(entry: Goal | str) -> Goal:
    """An entry of a chain as written out."""
    return Goal(upstream=entry) if isinstance(entry, str) else entry


def _goals(path: Path, fallback: Fallback, config: Config) -> Iterator[Problem]:
    if not fallback.to:
        yield Problem((*path, "to"), reason="leads nowhere", hint="name an upstream or a model")
    if not fallback.on:
        yield Problem((*path, "on"), reason="is for no kind of trouble", hint="name failure, context or policy")
    seen: set[tuple[str | None, str | None]] = set()
    for index, entry in enumerate(fallback.to):
        goal, here = goal_of(entry), (*path, "to", str(index))
        if goal.upstream is None and goal.model is None:
            yield Problem(here, reason="names neither an upstream nor a model")
        elif (goal.upstream, goal.model) in seen:
            yield Problem(here, reason="stands twice in its chain")
        elif goal.upstream is not None and goal.upstream not in config.upstreams:
            hint = did_you_mean(goal.upstream, config.upstreams) or "known: " + ", ".join(config.upstreams)
            yield Problem(here, reason="no upstream has this name", hint=hint)
        elif goal.upstream is not None and not speaks(config, fallback, goal.upstream):
            hint = f"not translated: {', '.join(sorted(UNTRANSLATED))}"
            yield Problem(here, reason="speaks another dialect than every upstream that the rule is for", hint=hint)
        elif goal.upstream is not None and goal.model is None and is_foreign(config, fallback, goal.upstream):
            reason = "speaks another dialect than every upstream that the rule is for, and knows other models"
            yield Problem(here, reason=reason, hint="name a `model` of its own")
        if goal.model is not None and not goal.model.strip():
            yield Problem((*here, "model"), reason="stands for no model")
        seen.add((goal.upstream, goal.model))


def _spoken(config: Config, rule: Fallback | Route) -> set[str]:
    """The dialects of the upstreams that the rule is for."""
    return {one.dialect for key, one in config.upstreams.items() if matches(rule.upstream, key)}


def speaks(config: Config, rule: Fallback | Route, name: str) -> bool:
    """Is there an upstream that the rule is for, whose clients this one can answer, if need be in translation?"""
    spoken, dialect = _spoken(config, rule), config.upstreams[name].dialect
    return not spoken or dialect in spoken or (dialect not in UNTRANSLATED and bool(spoken - UNTRANSLATED))


def is_foreign(config: Config, rule: Fallback | Route, name: str) -> bool:
    spoken = _spoken(config, rule)
    return bool(spoken) and config.upstreams[name].dialect not in spoken


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
