"""Retention: old segments go when the recorder has read them and size or age ask for it.

Rules
1. The newest segment of a writer, and any that a process holds, stay.
2. A segment that was not read to its end stays too, until the journal is `HARD_CAP` times its allowed size: then the
   oldest go all the same, and their unread records are counted as lost.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from gateway.config.schema import Journal as Settings
from gateway.journal.segment import HEADER_BYTES, Segment, frame_at, listing, read_header, sealed

HARD_CAP = 2
DAY_NS = 86_400 * 10**9


class Retained(NamedTuple):
    deleted: int  # segments
    freed: int  # bytes
    lost: int  # records deleted before they were read
    bytes: int  # what the journal takes now


class _Candidate(NamedTuple):
    changed: int  # ns since the epoch of the last append
    size: int
    segment: Segment
    read: bool
    free: bool  # sealed, and not the newest of its writer


def retain(directory: Path, settings: Settings, consumed: Mapping[str, int] | None, now: int) -> Retained:
    """Delete what may go. `consumed` is what the recorder has committed ({segment: offset}); None where that is not
    known, and then nothing counts as read. `now` is in ns since the epoch."""
    candidates = _candidates(directory, consumed or {})
    total = sum(candidate.size for candidate in candidates)
    deleted = freed = lost = 0
    oldest = now - int(settings.retention_days * DAY_NS)
    for candidate in sorted(candidates, key=lambda c: (not c.read, c.changed)):
        if not candidate.free:
            continue
        over = total > settings.retention_bytes
        far_over = total > settings.retention_bytes * HARD_CAP
        if not far_over and not (candidate.read and (over or candidate.changed < oldest)):
            continue
        if not candidate.read:
            lost += _unread(candidate.segment, (consumed or {}).get(candidate.segment.name, HEADER_BYTES))
        candidate.segment.path.unlink(missing_ok=True)
        deleted += 1
        freed += candidate.size
        total -= candidate.size
    return Retained(deleted, freed, lost, total)


def _candidates(directory: Path, consumed: Mapping[str, int]) -> list[_Candidate]:
    segments = listing(directory)
    found = []
    for index, segment in enumerate(segments):
        newest = index + 1 == len(segments) or segments[index + 1].writer != segment.writer
        try:
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            status, free = os.fstat(fd), not newest and sealed(fd)
        finally:
            os.close(fd)
        read = max(consumed.get(segment.name, 0), HEADER_BYTES) >= status.st_size
        found.append(_Candidate(status.st_mtime_ns, status.st_size, segment, read, free))
    return found


def _unread(segment: Segment, offset: int) -> int:
    """How many records follow `offset`."""
    with open(segment.path, "rb") as file:
        header = read_header(file.fileno())
        file.seek(offset)
        data = file.read()
    count = at = 0
    while header is not None and (end := frame_at(data, at, header.seed)) > 0:
        count += 1
        at = end
    return count
