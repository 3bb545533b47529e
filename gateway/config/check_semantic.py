"""What `tollgate check` says of the semantic cache: for which calls it learns or serves, and what it lacks."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config import check_cache
from gateway.config.problems import Problem
from gateway.config.schema import Config, SemanticCache
from gateway.config.schema_semantic import SemanticRule

SHORT = 300.0  # seconds that an answer with words of time should not be older than


def active(config: Config) -> bool:
    """Does any call need the matcher?"""
    semantic = config.cache.semantic
    modes = [semantic.mode, *[rule.mode or semantic.mode for rule in semantic.rules]]
    return check_cache.active(config) and any(mode != "off" for mode in modes)


def matching(config: Config, lacking: str) -> list[str]:
    """One line for each rule, and how similarity is measured. `lacking`: how to get what the local embedder lacks."""
    if not active(config):
        return []
    semantic = config.cache.semantic
    lines = [
        f"cache.semantic.rules.{at}: {check_cache.whose(rule)}: {_what(rule, semantic)}"
        for at, rule in enumerate(semantic.rules)
    ]
    others = "all other calls" if semantic.rules else "all calls"
    lines.append(f"cache.semantic: {others}: {_what(SemanticRule(), semantic)}")
    if semantic.embedder != "local":
        where = f"{semantic.embedder.model} at {semantic.embedder.upstream}, which costs what it costs there"
    else:
        where = "on this machine"
        if lacking:
            where = f"missing: {lacking}; until then only equal questions are answered"
    return [*lines, f"cache.semantic.embedder: {where}"]


def doubts(config: Config, lacking: str) -> Iterator[Problem]:
    """What leaves the semantic cache without effect, or lets it be wrong."""
    semantic = config.cache.semantic
    path = ("cache", "semantic")
    wanted = any(mode != "off" for mode in (semantic.mode, *[rule.mode or "off" for rule in semantic.rules]))
    if wanted and not check_cache.active(config):
        reason = "has no effect: it gives again what `cache.exact` keeps, and that keeps nothing"
        yield Problem(path, reason=reason, hint="set `cache.exact.enabled`, or rules")
    yield from check_cache.unreached(config, "semantic", semantic.rules)
    stated: list[tuple[tuple[str, ...], bool, float]] = [(path, semantic.time_words, semantic.ttl)]
    for index, rule in enumerate(semantic.rules):
        if rule.time_words is not None or rule.ttl is not None:
            words = semantic.time_words if rule.time_words is None else rule.time_words
            stated.append(((*path, "rules", str(index)), words, rule.ttl or semantic.ttl))
    for where, words, ttl in stated:
        if words and ttl > SHORT:
            reason = f"answers to questions about now are given for {ttl:g} s"
            yield Problem((*where, "time_words"), reason=reason, hint=f"set `ttl` to {SHORT:g} or less")
    if active(config) and semantic.embedder == "local" and lacking:
        yield Problem((*path, "embedder"), reason="the local embedder is not installed", hint=lacking)


def _what(rule: SemanticRule, semantic: SemanticCache) -> str:
    mode = rule.mode or semantic.mode
    if mode == "off":
        return "equal questions only"
    target = rule.target or semantic.target
    ttl = rule.ttl or semantic.ttl
    if mode == "shadow":
        return f"learns which questions share an answer, serves nothing (target {target:.2%} wrong)"
    sample = rule.sample or semantic.sample
    return (
        f"answers to similar questions for {ttl:g} s, once evidence says that at most {target:.2%} of them are wrong; "
        f"{sample:.1%} of hits are checked upstream"
    )
