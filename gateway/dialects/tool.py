"""HTTP tools: whatever their API is, it is relayed unread, but for the number of units that its price may count.

Errors of the gateway are worded as OpenAI does. A stream counts as complete when its connection ends properly: nothing
is known of its events, so nothing is added to it either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.call import Answer, Asked, Bounds, Executed, Request, Route, ToolUse
from gateway.dialects.meters import JsonMeter, OpaqueMeter
from gateway.dialects.openai_chat import OpenAIFamily
from gateway.dialects.shape import DECODE_FAULTS
from gateway.errors import GatewayError, Rejected
from gateway.ports import ErrorAnswer, Meter
from gateway.tool import TOOL_PREFIX, Terms

_any = msgspec.json.Decoder()


class Unread(OpaqueMeter):
    """Of a tool whose answer is nobody's to read. It has begun from the start: its head is not held back."""

    def __init__(self, asked: Asked, status: int) -> None:
        super().__init__(asked, status)
        self.started = True

    def end(self) -> Answer:
        answer = super().end()
        answer.executed = executed(self._asked, self._status, None)
        return answer


class Counted(JsonMeter):
    """Of a tool whose answer states, in its JSON, how many units it is to be paid for."""

    def __init__(self, asked: Asked, status: int, field: Sequence[str]) -> None:
        super().__init__(asked, status)
        self._field = field
        self._units: float | None = None

    def read(self, body: bytes) -> None:
        try:
            self._units = units_in(_any.decode(body), self._field)
        except DECODE_FAULTS:
            return

    def end(self) -> Answer:
        answer = super().end()
        answer.executed = executed(self._asked, self._status, self._units)
        return answer


def executed(asked: Asked, status: int, units: float | None) -> tuple[Executed, ...]:
    """By the status: only a success is paid for; a redirect, or an answer that is unchanged, has not failed."""
    ran, failed = 200 <= status < 300, status >= 400
    return tuple([Executed(use.id, use.name, ran, failed, units) for use in asked.calls])


def units_in(value: Any, field: Sequence[str]) -> float | None:
    """The number in this place of decoded JSON; None where there is none that could be a count."""
    for key in field:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return count(value)


def count(value: Any) -> float | None:
    """A number of units, or None: negative ones, infinities and booleans are none."""
    if type(value) not in (int, float) or not math.isfinite(value) or value < 0:
        return None
    return float(value) if value < 1e15 else None


class Tool(OpenAIFamily):
    """`terms`: what is configured, by the name of the upstream."""

    name = "tool"

    def __init__(self, terms: Mapping[str, Terms] | None = None) -> None:
        self._terms = terms or {}

    def question(self, route: Route, request: Request) -> Asked:
        if b"upgrade" in request.names:
            raise Rejected("a tool is called by plain HTTP, not by another protocol", code="upgrade_not_allowed")
        return Asked(calls=(ToolUse("", route.upstream.removeprefix(TOOL_PREFIX)),), gated=True)

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return Bounds(0, tools=tuple([use.name for use in asked.calls]))

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        terms = self._terms.get(route.upstream)
        if terms is not None and terms.price.field and b"event-stream" not in content_type:
            return Counted(asked, status, terms.price.field)
        return Unread(asked, status)

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        return None

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        return b""  # the cut connection says it
