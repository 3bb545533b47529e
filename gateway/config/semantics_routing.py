"""What routes must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config
from gateway.config.schema_routing import Route, RouteTo

MATCH_CHARS = 200
PATTERNS = ("model", "route", "upstream", "agent", "agent_version", "key", "team", "request_class")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")  # RFC 9110, 5.6.2


def faults(config: Config) -> Iterator[Problem]:
    """Every rule that the routes break."""
    seen: dict[str, Path] = {}
    for index, rule in enumerate(config.routes):
        path = ("routes", str(index))
        for name in PATTERNS:
            yield from pattern((*path, name), getattr(rule, name))
        for name, value in rule.headers.items():
            if not _TOKEN.match(name):
                yield Problem((*path, "headers", name), reason="not a header name")
            yield from pattern((*path, "headers", name), value)
        yield from _targets(path, rule, config)
        if rule.min_tokens is not None and rule.max_tokens is not None and rule.min_tokens > rule.max_tokens:
            yield Problem((*path, "min_tokens"), reason="is more than `max_tokens`, so nothing matches")
        if rule.canary is not None:
            if rule.canary.id in seen:
                yield Problem((*path, "canary", "id"), reason="another canary has this id")
            seen[rule.canary.id] = path
            yield from _target((*path, "canary", "to"), rule.canary.to, config)


def pattern(path: Path, text: str) -> Iterator[Problem]:
    """A name with * as wildcard, as a person writes one."""
    if not text or len(text) > MATCH_CHARS or not text.isprintable() or text != text.strip():
        yield Problem(path, reason=f"must be 1 to {MATCH_CHARS} printable characters without space around")
    elif "**" in text:
        yield Problem(path, reason="one * already stands for any characters")


def _targets(path: Path, rule: Route, config: Config) -> Iterator[Problem]:
    if not rule.to:
        yield Problem((*path, "to"), reason="names no target")
    places = set()
    for index, to in enumerate(rule.to):
        yield from _target((*path, "to", str(index)), to, config)
        one = (to, None) if isinstance(to, str) else (to.model, to.upstream)
        if one in places:
            yield Problem((*path, "to", str(index)), reason="stands before it already")
        places.add(one)
    dialects = {
        config.upstreams[to.upstream].dialect
        for to in [*rule.to, *([rule.canary.to] if rule.canary is not None else [])]
        if isinstance(to, RouteTo) and to.upstream in config.upstreams
    }
    if len(dialects) > 1:
        named = ", ".join(sorted(dialects))
        reason = f"its targets speak different APIs ({named}): a call reaches those of its own only"
        yield Problem((*path, "to"), reason=reason)


def _target(path: Path, to: RouteTo | str, config: Config) -> Iterator[Problem]:
    if isinstance(to, str):
        if not to.strip():
            yield Problem(path, reason="names no model")
        return
    if to.model is None and to.upstream is None:
        yield Problem(path, reason="names neither a model nor an upstream")
    if to.model is not None and not to.model.strip():
        yield Problem((*path, "model"), reason="names no model")
    if to.upstream is not None and to.upstream not in config.upstreams:
        hint = did_you_mean(to.upstream, config.upstreams) or "known: " + ", ".join(config.upstreams)
        yield Problem((*path, "upstream"), reason="no upstream has this name", hint=hint)
