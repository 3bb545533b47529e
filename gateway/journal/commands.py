"""What `tollgate journal cat` and `tollgate journal verify` do."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
from msgspec import Struct

from gateway.call import PICO_USD
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord, Record
from gateway.journal.verify import Report
from gateway.journal.verify import verify as check

FOLLOW_SECONDS = 0.2


def cat(
    directory: Path, *, follow: bool = False, run: str | None = None, json: bool = False, out: TextIO | None = None
) -> int:
    """Print the records, oldest first: one line each, or one JSON object each. Returns the exit status.

    With `follow` it goes on until interrupted; `run` shows only what belongs to that run.
    """
    out = out or sys.stdout
    reader = JournalReader(directory)
    try:
        while True:
            batch = reader.read()
            for _, record in batch:
                if run is None or getattr(record, "run_id", None) == run:
                    out.write((as_json(record) if json else as_line(record)) + "\n")
            if batch:
                out.flush()
            elif not follow:
                break
            else:
                time.sleep(FOLLOW_SECONDS)
    except (BrokenPipeError, KeyboardInterrupt):
        return 0
    finally:
        reader.close()
    if any(msgspec.structs.astuple(reader.damage)):
        sys.stderr.write(f"damage: {msgspec.json.encode(reader.damage).decode()}\n")
    return 0


def verify(directory: Path, *, json: bool = False, out: TextIO | None = None) -> int:
    """Check the journal and say what is in it. Returns 0 where nothing is damaged, else 1."""
    out = out or sys.stdout
    report = check(directory)
    if json:
        out.write(msgspec.json.encode({**plain(report), "ok": report.ok}).decode() + "\n")
    else:
        out.write(_describe(report))
    return 0 if report.ok else 1


def _describe(report: Report) -> str:
    lines = []
    for segment in report.segments:
        notes = [
            note
            for note, there in (
                ("open", segment.open),
                (f"torn end of {segment.torn_bytes} bytes", segment.torn_bytes and not segment.open),
                (f"{segment.corrupt} damaged places", segment.corrupt),
                (f"{segment.undecodable} undecodable", segment.undecodable),
                (segment.fault or "not a segment", not segment.readable),
            )
            if there
        ]
        lines.append(f"{segment.name}  {segment.records} records  {segment.bytes} bytes  {', '.join(notes)}".rstrip())
    lines.extend(f"missing: {name}" for name in report.missing)
    if report.duplicates:
        lines.append(f"recorded more than once: {report.duplicates}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(report.kinds.items())) or "nothing"
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items()))
    lines.append(f"{kinds}" + (f" ({outcomes})" if outcomes else ""))
    lines.append("ok" if report.ok else "DAMAGED")
    return "\n".join(lines) + "\n"


def as_line(record: Record) -> str:
    """A record for people."""
    if not isinstance(record, CallRecord):
        rest = {k: v for k, v in plain(record).items() if k not in ("id", "at", "kind") and v not in ("", None, {}, -1)}
        return f"{_moment(record.at)} {record.kind} {msgspec.json.encode(rest).decode()}"
    usage = record.usage
    tokens = f"{usage.input_tokens}+{usage.output_tokens} tokens" if usage is not None else "- tokens"
    cost = f"${record.cost / PICO_USD:.6f}" if record.cost is not None else "$?"
    return " ".join(
        (
            _moment(record.started_at),
            record.outcome,
            str(record.status or "-"),
            record.model_used or record.model_requested or record.route,
            f"agent={record.agent or '-'}",
            f"run={record.run_id or '-'}",
            tokens,
            cost,
            f"{record.duration_ns / 1e6:.1f}ms",
            record.id,
            *([f"{record.error_code}: {record.error_message}"] if record.error_code else []),
        )
    )


def as_json(record: Record) -> str:
    data = {"record": record.__struct_config__.tag, **plain(record)}
    if isinstance(record, CallRecord):
        data["cost_usd"] = record.cost / PICO_USD if record.cost is not None else None
    return msgspec.json.encode(data).decode()


def plain(value: Any) -> Any:
    """Structs as objects, however they are encoded in the journal; captured bytes as text."""
    if isinstance(value, Struct):
        return {name: plain(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value


def _moment(at: int) -> str:
    return datetime.fromtimestamp(at / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
