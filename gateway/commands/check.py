"""`tollgate check`: everything wrong or doubtful in a configuration, before anything runs with it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from gateway.config.check import errors, keys_in_use, warnings
from gateway.config.check_bulkheads import bulkheads
from gateway.config.check_cache import caching
from gateway.config.check_limits import coverage
from gateway.config.check_resilience import resilience
from gateway.config.check_routing import routing
from gateway.config.check_semantic import matching
from gateway.config.load import Loaded, find, load_with_source, misnamed
from gateway.config.problems import ConfigError, Problem
from gateway.config.roster import roster
from gateway.policy.pricing import PriceTable
from gateway.prices.catalogue import ensure_compiled
from gateway.prices.load import load
from gateway.semantic import parts


def run(path: Path | None, env: Mapping[str, str], *, strict: bool = False, out: TextIO | None = None) -> int:
    """Print problems and warnings. Returns 2 if there are problems, 1 for warnings where `strict`, else 0."""
    out = out or sys.stdout
    name = find(path, env) or "built-in defaults (no tollgate.yaml here)"
    try:
        loaded = load_with_source(path, env, {})
        shipped, priced = _tables(loaded)
        keys = roster(loaded.config)
        if wrong := errors(loaded, priced, keys):
            raise ConfigError(wrong)
    except ConfigError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=out)
        print(f"{name}: {_count(len(error.problems), 'problem')}", file=out)
        return 2
    lacking = parts.advice(parts.missing())
    found = [*warnings(loaded, shipped, priced, lacking), *misnamed(env)]
    for warning in found:
        print(f"warning: {warning}", file=out)
    config = loaded.config
    cached = [*caching(config), *matching(config, lacking)]
    said = [*keys_in_use(config), *coverage(config, priced, keys), *cached]
    for line in [*said, *routing(config), *resilience(config), *bulkheads(config)]:
        print(f"  {line}", file=out)
    print(f"{name}: no problems, {_count(len(found), 'warning')}; prices of {priced.version}", file=out)
    return 1 if strict and found else 0


def _tables(loaded: Loaded) -> tuple[PriceTable, PriceTable]:
    """The bare catalogue, and the one with the overrides of the configuration."""
    source = ensure_compiled(Path(loaded.config.state or "."))
    try:
        priced = load(source, loaded.config.prices, loaded.config.upstreams)
    except (OSError, ValueError) as error:
        path = ("prices", "litellm_file")
        place = str(loaded.file) if loaded.file is not None else ""
        problem = Problem(path, reason=f"not usable: {error}", source=place, line=loaded.document.line(path))
        raise ConfigError([problem]) from None
    return load(source, upstreams=loaded.config.upstreams), priced


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
