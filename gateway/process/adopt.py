"""What of a reloaded configuration a running gateway takes over, and the files it comes from."""

from __future__ import annotations

from pathlib import Path

from msgspec import structs

from gateway.config.load import Loaded
from gateway.config.reload import needs_restart
from gateway.config.schema import Config


class ListenerMoved(Exception):
    """A reload that cannot be: the sockets are bound for the life of the gateway."""


def adopted(old: Config, new: Config) -> tuple[Config, tuple[str, ...]]:
    """`new` as it can come into force now, and the fields that keep their old value until a restart.

    Raises ListenerMoved.
    """
    waiting = tuple(needs_restart(old, new))
    moved = [name for name in ("listen", "admin") if name in waiting]
    if moved:
        what = " and ".join(f"`{name}` ({getattr(old, name)} to {getattr(new, name)})" for name in moved)
        raise ListenerMoved(f"{what} cannot change while the gateway runs; restart it, or take the change back")
    kept = structs.replace(
        new,
        workers=old.workers,
        state=old.state,
        journal=structs.replace(new.journal, directory=old.journal.directory),
        identity=structs.replace(new.identity, links=old.identity.links),
        spending=structs.replace(new.spending, redis=old.spending.redis, prefix=old.spending.prefix),
    )
    return kept, waiting


def files(loaded: Loaded) -> list[Path]:
    """Everything on disk that the configuration is made of."""
    config = loaded.config
    names = [config.prices.litellm_file, *(upstream.ca_file for upstream in config.upstreams.values())]
    if config.tls is not None:
        names += [config.tls.certificate, config.tls.key]
    found = [Path(name) for name in names if name is not None]
    return [*found, loaded.file] if loaded.file is not None else found
