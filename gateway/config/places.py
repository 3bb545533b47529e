"""Where a loaded configuration keeps its files, and what it keeps elsewhere."""

from __future__ import annotations

from pathlib import Path

from gateway.config.schema import Config


def state(config: Config) -> Path:
    """The state directory. `load` fills it in; raises ValueError for a configuration that did not pass it."""
    if config.state is None:
        raise ValueError("the configuration has no state directory")
    return Path(config.state)


def journal(config: Config) -> Path:
    """The directory of journal segments."""
    return Path(config.journal.directory) if config.journal.directory else state(config) / "journal"


def controls(config: Config) -> Path:
    """The SQLite file of what people decided: kills, raised budgets, limits of runs."""
    return state(config) / "controls.sqlite"


def cache(config: Config) -> Path:
    """The SQLite file of stored answers."""
    return state(config) / "cache.sqlite"


def matcher(config: Config) -> Path:
    """The SQLite file of what is known of similar questions."""
    return state(config) / "semantic.sqlite"


def matcher_socket(config: Config) -> Path:
    """Where workers and recorder reach the matcher."""
    return state(config) / "matcher.sock"


def embedder(config: Config) -> Path:
    """Directory of what the built-in embedder makes of its weights."""
    return state(config) / "embedder"


def flights(config: Config) -> Path:
    """The directory of files through which workers share calls under way."""
    return state(config) / "flights"


def cache_redis(config: Config) -> str | None:
    """The URL of the Redis that stored answers are in; None where they are in the file."""
    return (config.cache.redis or config.spending.redis) if config.cache.store == "redis" else None


def canaries(config: Config) -> Path:
    """The SQLite file of how canaries stand."""
    return state(config) / "canaries.sqlite"


def learned(config: Config) -> Path:
    """The SQLite file of what was learned of models."""
    return state(config) / "learned.sqlite"


def keys(config: Config) -> Path:
    """The SQLite file of virtual keys; see also gateway.config.roster."""
    return state(config) / "keys.sqlite"


def pepper(config: Config) -> Path:
    """The secret that keys the digests of virtual keys."""
    return state(config) / "keys.pepper"


def ledger(config: Config) -> Path:
    """The SQLite file of calls, runs and tools."""
    return state(config) / "ledger.sqlite"
