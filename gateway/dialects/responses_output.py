"""The output of a Responses stream as far as it has come, kept so that the stream can be ended in the middle.

Kept are the finished items as they were sent, and of the item under way how it began and the text since. Memory is
bounded: what goes beyond `MAX_KEPT` is not kept, and then missing from the output that is stated at an early end. Calls
of the client's tools that are not complete are left out: nobody may act on half of their arguments.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.usage import as_dict

MAX_KEPT = 1024 * 1024  # bytes and characters
MAX_PARTS = 1024

# kind of delta -> (type of its part, member that holds the text, event that ends it)
_PARTS = {
    "response.output_text.delta": ("output_text", "text", "response.output_text.done"),
    "response.refusal.delta": ("refusal", "refusal", "response.refusal.done"),
    "response.reasoning_text.delta": ("reasoning_text", "text", ""),
    "response.reasoning_summary_text.delta": ("summary_text", "text", ""),
}
Place = tuple[int, int, str]  # output index, index of the part in it, kind of its deltas
NOWHERE: Place = (0, 0, "")


def index_of(value: object) -> int:
    """As it stands in an event; odd ones count as the first."""
    return value if type(value) is int and value >= 0 else 0


class Output:
    """`head`: the response object as it began."""

    __slots__ = ("_begun", "_closed", "_done", "_kept", "_said", "head")

    def __init__(self) -> None:
        self.head = b""
        self._begun: dict[int, bytes] = {}
        self._done: dict[int, bytes] = {}
        self._said: dict[Place, list[str]] = {}
        self._closed: set[tuple[int, int]] = set()  # parts whose end the client has seen
        self._kept = 0

    def opened(self, head: bytes) -> None:
        if len(head) <= MAX_KEPT:
            self.head = head

    def begun(self, index: int, item: bytes) -> None:
        if self._may_keep(len(item)):
            self._begun[index] = item

    def done(self, index: int, item: bytes) -> None:
        self._begun.pop(index, None)
        for place in [place for place in self._said if place[0] == index]:
            self._kept -= sum(map(len, self._said.pop(place)))
        if self._may_keep(len(item)):
            self._done[index] = item

    def said(self, place: Place, text: str) -> None:
        if place[2] in _PARTS and self._may_keep(len(text)):
            known = self._said.get(place)
            if known is not None:
                known.append(text)
            elif len(self._said) < MAX_PARTS:
                self._said[place] = [text]

    def closed(self, index: int, part: int) -> None:
        if len(self._closed) < MAX_PARTS:
            self._closed.add((index, part))

    def _may_keep(self, size: int) -> bool:
        self._kept += size
        return self._kept <= MAX_KEPT

    def ending(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(events that end what is open, all items of the output so far)."""
        events: list[dict[str, Any]] = []
        items = {index: object_of(raw) for index, raw in self._done.items()}
        for index, raw in sorted(self._begun.items()):
            item = object_of(raw)
            if item.get("type") in ("message", "reasoning"):
                events += self._end(index, item)
                items[index] = item
        return events, [items[index] for index in sorted(items) if items[index]]

    def _end(self, index: int, item: dict[str, Any]) -> list[dict[str, Any]]:
        """Fill the item under way with what was said in it; the events that end it."""
        events: list[dict[str, Any]] = []
        item["status"] = "incomplete"
        content: list[dict[str, Any]] = []
        summary: list[dict[str, Any]] = []
        for place in sorted(place for place in self._said if place[0] == index):
            kind, member, end = _PARTS[place[2]]
            text = "".join(self._said[place])
            part: dict[str, Any] = {"type": kind, member: text}
            if kind == "output_text":
                part.update(annotations=[], logprobs=[])
            (summary if kind == "summary_text" else content).append(part)
            if end and (index, place[1]) not in self._closed:
                where = {"item_id": item.get("id"), "output_index": index, "content_index": place[1]}
                logprobs: dict[str, Any] = {"logprobs": []} if kind == "output_text" else {}
                events.append({"type": end, **where, member: text, **logprobs})
                events.append({"type": "response.content_part.done", **where, "part": part})
        if content or item.get("type") == "message":
            item["content"] = content
        if summary:
            item["summary"] = summary
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
        return events


def object_of(raw: bytes) -> dict[str, Any]:
    """Empty where it is none."""
    try:
        return dict(as_dict(msgspec.json.decode(raw)))
    except DECODE_FAULTS:
        return {}
