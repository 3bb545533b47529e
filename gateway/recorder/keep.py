"""Where metrics survive a restart of the recorder: their snapshot, and the place in the journal it stands for."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from gateway.recorder.projection import Positions

_log = logging.getLogger("tollgate.recorder")


class Kept(Struct, array_like=True):
    positions: dict[str, int]
    state: bytes


class Stateful(Protocol):
    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None:
        """Raises msgspec.MsgspecError for what is no snapshot."""
        ...


class SnapshotFile:
    """One file, replaced as a whole. What cannot be read is as good as none: the journal is counted again then."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def restore(self, projection: Stateful) -> dict[str, int]:
        """Give the projection its state back; returns what that contains."""
        try:
            kept = msgspec.msgpack.decode(self._path.read_bytes(), type=Kept)
            projection.restore(kept.state)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as e:
            _log.warning("recorder: metrics are counted again from the journal: %s", e)
            return {}
        return kept.positions

    def save(self, projection: Stateful, positions: Positions) -> None:
        """Never raises: the file before stays, and is good."""
        draft = self._path.with_name(f"{self._path.name}.new")
        try:
            draft.write_bytes(msgspec.msgpack.encode(Kept(dict(positions), projection.snapshot())))
            os.replace(draft, self._path)
        except OSError as e:
            _log.warning("recorder: metrics cannot be kept: %s", e)
