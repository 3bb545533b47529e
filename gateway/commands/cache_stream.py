"""Streams of questions for `tollgate cache eval`: labelled ones of a file, or those that a journal holds."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from gateway.errors import Rejected
from gateway.journal.read import JournalReader
from gateway.journal.record import CallRecord
from gateway.policy.semantic_compare import Verdict, by_sense
from gateway.ports_semantic import Embedder
from gateway.recorder.names_span import Span
from gateway.recorder.traces_content import content_attributes
from gateway.semantic.replay import Asked
from gateway.semantic.search import Index

_NEAR = 8  # answers that one is held against


class _Row(Struct, rename={"answer": "class"}):
    text: str
    answer: str | int


class Recorded(Struct, frozen=True):
    """A question of one user message and its answer."""

    text: str
    answer: str
    part: str
    before: bool = False  # the model has said something before


def labelled(path: Path) -> list[Asked]:
    """Lines of {"text", "class"}; .gz too. Raises Rejected, OSError."""
    data = path.read_bytes()
    try:
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (EOFError, zlib.error) as error:
        raise Rejected(f"{path}: {error}") from error
    decoder, found = msgspec.json.Decoder(_Row), []
    for number, line in enumerate(data.removeprefix(BOM_UTF8).splitlines(), 1):
        try:
            row = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Rejected(f'{path}:{number}: {error}; expected {{"text": ..., "class": ...}}') from error
        found.append(Asked(row.text, str(row.answer)))
    return found


def recorded(directory: Path) -> Iterator[Recorded | None]:
    """Of each call that ended well, in order; None for one whose content does not say it: no capture, a stream, more
    than text."""
    reader = JournalReader(directory)
    try:
        while batch := reader.read():
            for _, record in batch:
                if isinstance(record, CallRecord) and not record.error_code:
                    yield _recorded(record)
    finally:
        reader.close()


def _recorded(record: CallRecord) -> Recorded | None:
    content = content_attributes(record.input_content, record.output_content)
    asked, answered = _messages(content, Span.INPUT_MESSAGES), _messages(content, Span.OUTPUT_MESSAGES)
    if not asked or len(answered) != 1:
        return None
    text, answer = _text(asked[-1], "user"), _text(answered[0], answered[0].get("role"))
    if text is None or answer is None:
        return None
    before = [asked[:-1], content.get(Span.SYSTEM_INSTRUCTIONS), content.get(Span.TOOL_DEFINITIONS)]
    place = [record.tenant, record.route, record.model_requested, before]
    said = any([message.get("role") == "assistant" for message in asked])
    return Recorded(text, answer, hashlib.sha256(msgspec.json.encode(place)).hexdigest(), said)


def _messages(content: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return msgspec.json.decode(content.get(name, "[]"), type=list[dict[str, Any]])


def _text(message: dict[str, Any], role: object) -> str | None:
    """Of a message that is one text by this role."""
    parts = message.get("parts") or []
    if message.get("role") != role or len(parts) != 1 or parts[0].get("type") != "text":
        return None
    text = parts[0].get("content")
    return text if isinstance(text, str) and text else None


def judged(calls: list[Recorded], embedder: Embedder) -> tuple[list[Asked], int]:
    """With equal labels for answers that say the same, and how many comparisons were left open (taken as different)."""
    index, first, found, unknown = Index(embedder.dimension), list[str](), list[Asked](), 0
    for call in calls:
        (vector,) = embedder.embed([call.answer])
        label = None
        for near in index.near(vector, _NEAR):
            verdict = by_sense(first[near.id], call.answer, near.cosine)
            unknown += verdict is Verdict.UNKNOWN
            if verdict is Verdict.SAME:
                label = near.id
                break
        if label is None:
            label = len(first)
            first.append(call.answer)
            index.add(label, vector)
        found.append(Asked(call.text, str(label), call.part, call.before))
    return found, unknown
