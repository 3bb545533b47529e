"""Noticing that files changed: by what they hold, however they were replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

_Stat = tuple[int, int, int, int, int]


class FileWatch:
    """Polled. A change counts once it has settled: two polls in a row must see the same.

    Links are followed, so a swapped link (Kubernetes ConfigMaps) is a change, and a rewrite of the same bytes is none.
    A file that is not there counts as empty of everything.
    """

    def __init__(self, paths: Iterable[Path]) -> None:
        self._stats: dict[Path, tuple[_Stat, bytes]] = {}
        self.watch(paths)

    def watch(self, paths: Iterable[Path], read: Mapping[Path, bytes | None] | None = None) -> None:
        """Watch these from now on; what they held at the `snapshot` that is handed in, or hold now, is no change."""
        self._paths = sorted(set(paths))
        self._last = self._look()
        held = dict(zip(self._paths, self._last, strict=True)) | dict(read or {})
        self._known = [held[path] for path in self._paths]

    def snapshot(self) -> dict[Path, bytes | None]:
        """To be taken before the files are read: a change from then on is not missed."""
        return dict(zip(self._paths, self._look(), strict=True))

    def changed(self) -> bool:
        """Poll: has something changed and settled since the last time this was True?"""
        now = self._look()
        settled, self._last = now == self._last, now
        if not settled or now == self._known:
            return False
        self._known = now
        return True

    def _look(self) -> list[bytes | None]:
        return [self._digest(path) for path in self._paths]

    def _digest(self, path: Path) -> bytes | None:
        try:
            s = path.stat()
            stat = (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)
            seen = self._stats.get(path)
            if seen is None or seen[0] != stat:
                seen = self._stats[path] = stat, hashlib.sha256(path.read_bytes()).digest()
        except OSError:
            self._stats.pop(path, None)
            return None
        return seen[1]
