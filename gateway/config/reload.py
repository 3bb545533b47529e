"""What changed between two configurations, and which of it a running gateway cannot take over."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from gateway.config.problems import Path, dotted
from gateway.config.schema import Config, Config_

RESTART: frozenset[Path] = frozenset(
    {
        ("listen",),  # sockets are bound once, before the workers start
        ("admin",),
        ("workers",),
        ("state",),  # ledger, offsets and shared memory live there
        ("journal", "directory"),
        ("identity", "links"),  # size of a shared table that is mapped at start
        ("spending", "redis"),  # what is reserved in one store cannot be settled in another
        ("spending", "prefix"),
        ("cache", "store"),
        ("cache", "redis"),
    }
)


def diff(old: Config, new: Config) -> list[str]:
    """Dotted paths of the fields that differ, sorted; an entry that came or went is named as a whole."""
    return sorted(dotted(path) for path in _changed(old, new, ()))


def needs_restart(old: Config, new: Config) -> list[str]:
    """The changed paths that take effect only when the gateway is started anew, sorted."""
    return sorted(dotted(path) for path in _changed(old, new, ()) if path in RESTART)


def _changed(old: Any, new: Any, path: Path) -> list[Path]:
    if type(old) is type(new) and isinstance(old, Config_):
        pairs = [(name, getattr(old, name), getattr(new, name)) for name in old.__struct_fields__]
        return [found for name, before, after in pairs for found in _changed(before, after, (*path, name))]
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            found for name in old.keys() | new.keys() for found in _changed(old.get(name), new.get(name), (*path, name))
        ]
    if isinstance(old, tuple) and isinstance(new, tuple):
        pairs = [(str(index), *both) for index, both in enumerate(zip_longest(old, new))]
        return [found for name, before, after in pairs for found in _changed(before, after, (*path, name))]
    return [] if old == new else [path]
