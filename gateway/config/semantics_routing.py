"""What routes must also satisfy; part of gateway.config.semantics."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from gateway.config.problems import Path, Problem, did_you_mean
from gateway.config.schema import Config
from gateway.config.schema_routing import CanaryTo, Route, RouteTo
from gateway.config.semantics_resilience import UNTRANSLATED, is_foreign, speaks

MATCH_CHARS = 200
PATTERNS = ("model", "route", "upstream", "agent", "agent_version", "key", "team", "request_class")
RANKED = ("priority", "cost", "learned")  # choices with an order from cheap to dear
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
        yield from _cascade((*path, "cascade"), rule)
        if rule.canary is not None:
            if rule.canary.id in seen:
                yield Problem((*path, "canary", "id"), reason="another canary has this id")
            seen[rule.canary.id] = path
            yield from _canary((*path, "canary"), rule.canary, config)
    yield from _learned(config)


def _learned(config: Config) -> Iterator[Problem]:
    seen: set[str] = set()
    for index, rule in enumerate(config.routes):
        path, learn = ("routes", str(index), "learn"), rule.learn
        if learn is None:
            if rule.by == "learned":
                yield Problem(path, reason="is needed to choose by what was learned", hint="write `learn: {id: NAME}`")
            continue
        if len(rule.to) < 2:
            yield Problem(path, reason="has nothing to choose between: the rule has one target")
        if learn.id in seen:
            yield Problem((*path, "id"), reason="another rule learns under this id")
        seen.add(learn.id)
        if learn.labels is not None and not os.access(learn.labels, os.R_OK):
            yield Problem((*path, "labels"), reason=f"{learn.labels} cannot be read")


def _cascade(path: Path, rule: Route) -> Iterator[Problem]:
    if rule.cascade is None:
        return
    if len(rule.to) < 2:
        yield Problem(path, reason="has nowhere to go on: the rule has one target")
    if rule.by not in RANKED:
        hint = "write `by: cost`, or list the cheap ones first"
        yield Problem(path, reason=f"asks the cheap targets first, and `by: {rule.by}` has no such order", hint=hint)
    if rule.canary is not None:
        yield Problem(path, reason="would hide what the canary of this rule answers", hint="give one of them up")


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
    yield from _apis(path, rule, config)


def _apis(path: Path, rule: Route, config: Config) -> Iterator[Problem]:
    """Targets that speak another API than those before them are asked in translation, for a model of their own."""
    places = [((*path, "to", str(index)), to) for index, to in enumerate(rule.to)]
    if rule.canary is not None and rule.canary.to is not None:
        places.append(((*path, "canary", "to"), rule.canary.to))
    first = ""
    for place, to in places:
        if isinstance(to, str) or to.upstream not in config.upstreams:
            continue
        dialect = config.upstreams[to.upstream].dialect
        first = first or dialect
        alone = dialect != first and not UNTRANSLATED.isdisjoint((dialect, first))
        if alone or not speaks(config, rule, to.upstream):
            reason = "speaks an API that cannot answer for the others"
            yield Problem(place, reason=reason, hint=f"not translated: {', '.join(sorted(UNTRANSLATED))}")
        elif to.model is None and (dialect != first or is_foreign(config, rule, to.upstream)):
            reason = "speaks another API than the others, or than those that the rule is for, and knows other models"
            yield Problem(place, reason=reason, hint="name a `model` of its own")


def _canary(path: Path, canary: CanaryTo, config: Config) -> Iterator[Problem]:
    if canary.to is not None:
        yield from _target((*path, "to"), canary.to, config)
        if canary.breakpoints is not None:
            reason = "cannot be on trial beside a target: nobody could tell which of them it was"
            yield Problem((*path, "breakpoints"), reason=reason)
    elif canary.breakpoints is None:
        yield Problem(path, reason="has nothing on trial", hint="name a target (`to`), or `breakpoints: true`")
    elif canary.breakpoints == config.prompt_cache.breakpoints:
        reason = "is what `prompt_cache.breakpoints` says for all runs: the arms do not differ"
        yield Problem((*path, "breakpoints"), reason=reason)


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
