"""Checking a journal: every frame of every segment, without changing anything."""

from __future__ import annotations

import os
from collections import Counter
from itertools import pairwise
from pathlib import Path

from msgspec import DecodeError, Struct, field

from gateway.journal.record import CallRecord, decode
from gateway.journal.segment import FRAME_BYTES, HEADER_BYTES, Segment, frame_at, listing, read_header, resync, sealed

CHUNK = 1 << 22


class SegmentReport(Struct):
    name: str
    bytes: int = 0
    created: int = 0  # ns since the epoch
    open: bool = False  # its writer lives
    records: int = 0
    torn_bytes: int = 0  # an incomplete last frame
    corrupt: int = 0  # damaged places
    undecodable: int = 0  # intact frames that hold no record
    readable: bool = True  # it has a header
    fault: str = ""  # why it could not be read


class Report(Struct):
    segments: list[SegmentReport] = field(default_factory=list)
    kinds: dict[str, int] = field(default_factory=dict)  # records by kind
    outcomes: dict[str, int] = field(default_factory=dict)  # call records by outcome
    duplicates: int = 0  # record ids that stand in the journal more than once
    missing: list[str] = field(default_factory=list)  # segments between others of their writer

    @property
    def records(self) -> int:
        return sum(segment.records for segment in self.segments)

    @property
    def ok(self) -> bool:
        """Nothing is damaged or there twice. A torn end of a dead writer's segment is no damage: it was no record."""
        damaged = any(s.corrupt or s.undecodable or not s.readable for s in self.segments)
        return not (damaged or self.duplicates or self.missing)


def verify(directory: Path) -> Report:
    """Read everything in `directory` as it is now; what is deleted meanwhile is left out."""
    segments, check = listing(directory), _Check()
    report = Report([found for segment in segments if (found := check.segment(segment)) is not None])
    report.kinds, report.outcomes = dict(check.kinds), dict(check.outcomes)
    report.duplicates = sum(1 for count in check.ids.values() if count > 1)
    for before, after in pairwise(segments):
        if before.writer == after.writer:
            report.missing.extend(f"{after.writer}-{seq:08d}.tgj" for seq in range(before.seq + 1, after.seq))
    return report


class _Check:
    """What was counted over all segments."""

    def __init__(self) -> None:
        self.ids = Counter[str]()
        self.kinds = Counter[str]()
        self.outcomes = Counter[str]()

    def segment(self, segment: Segment) -> SegmentReport | None:
        found = SegmentReport(segment.name)
        try:
            self._read(segment, found)
        except FileNotFoundError:
            return None
        except OSError as error:
            found.readable, found.fault = False, error.strerror or str(error)
        return found

    def _read(self, segment: Segment, found: SegmentReport) -> None:
        with open(segment.path, "rb") as file:
            header = read_header(file.fileno())
            found.bytes = os.fstat(file.fileno()).st_size
            found.open = not sealed(file.fileno())
            if header is None:
                found.readable = False
                return
            found.created = header.created
            file.seek(HEADER_BYTES)
            data, more = b"", True
            while more:
                piece = file.read(CHUNK)
                more = bool(piece)
                data += piece
                data = data[self._frames(data, header.seed, found, last=not more) :]
            found.torn_bytes = len(data)

    def _frames(self, data: bytes, seed: int, found: SegmentReport, *, last: bool) -> int:
        """Count the records in `data`; returns where what is no whole frame yet begins."""
        at = 0
        while at < len(data):
            end = frame_at(data, at, seed)
            if end <= 0:
                start = resync(data, at, seed) if end < 0 or last else -1
                if start < 0:
                    break
                found.corrupt += 1
                at = start
                continue
            self._record(data[at + FRAME_BYTES : end], found)
            at = end
        return at

    def _record(self, payload: bytes, found: SegmentReport) -> None:
        try:
            record = decode(payload)
        except DecodeError:  # ValidationError is one
            found.undecodable += 1
            return
        found.records += 1
        self.ids[record.id] += 1
        self.kinds[str(record.__struct_config__.tag)] += 1
        if isinstance(record, CallRecord):
            self.outcomes[record.outcome] += 1
