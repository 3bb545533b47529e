"""Text messages of a Responses or realtime WebSocket: each response brings its own usage, the session sums them.

Messages are looked at one by one (they come framed), and only those that can matter are decoded.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Usage
from gateway.dialects import faults
from gateway.dialects.meters import Draft, first_text
from gateway.dialects.responses_facts import ENDINGS, RESPONSE, note_error, note_output, note_response
from gateway.dialects.shape import NO_RAW, Shape, is_set
from gateway.dialects.sse import MAX_EVENT
from gateway.dialects.usage import add, as_dict
from gateway.errors import GatewayError
from gateway.ports import Used

REMEMBERED = 16  # models that a client asked for


class _Message(Struct, gc=False):
    type: Any = None
    response: Raw = NO_RAW
    session: Any = None
    model: Any = None
    error: Raw = NO_RAW
    code: Any = None
    message: Any = None


_message = Shape(_Message)


class WebSocketMeter:
    """`responses` counts the answers of the session; `failed` holds the type of the last error message."""

    def __init__(self, asked: Asked | None = None) -> None:
        self.draft = Draft()
        self.failed = ""
        self.responses = 0
        self._asked = asked or Asked()
        self._total: Usage | None = None
        self._told = 0
        self._models: set[str] = set()  # that the client asked for

    def feed_text(self, direction: str, data: bytes | str) -> None:
        """`direction` says who sent the message: "client" or "upstream". Never raises."""
        text = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if len(text) > MAX_EVENT:
            return
        if direction != "upstream":
            self._client(text)
        elif b'"response.' in text or b'"error"' in text or b'"session.' in text:
            self._upstream(text)

    def used(self) -> Used | None:
        """The sum of all answers; None where none has come to its end since the last time."""
        if self._total is None or self.responses == self._told:
            return None
        self._told = self.responses
        return Used(self.draft.model, self._total, self.draft.pricing)

    def strays(self, model: str) -> bool:
        """Did the client ask for another model than this one?"""
        return bool(self._models - {model.lower()})

    def end(self) -> Answer:
        self.draft.usage = self._total
        return self.draft.answer(self._asked, complete=not self.failed)

    def _client(self, text: bytes) -> None:
        """The model a response or session is asked from."""
        if b'"model"' not in text and b"\\u" not in text:
            return
        message = _message.salvage(text)
        if message is None or message.type not in {"response.create", "session.update"}:
            return
        inner = _message.salvage(bytes(message.response)) if is_set(message.response) else None
        session = as_dict(message.session).get("model")
        model = first_text(message.model, session, inner.model if inner is not None else None)
        if model and len(self._models) < REMEMBERED:
            self._models.add(model.lower())
        if not self.draft.model:
            self.draft.named(model, "")

    def _upstream(self, text: bytes) -> None:
        message = _message.salvage(text)
        if message is None:
            return
        if message.type in ENDINGS and is_set(message.response):
            self._settle(message.response)
        elif message.type in {"session.created", "session.updated"}:
            self.draft.named(as_dict(message.session).get("model"), "")
        elif message.type == "error":
            if is_set(message.error):
                note_error(self.draft, message.error)
            else:
                self.draft.error(first_text(message.code), first_text(message.message))
            self.failed = self.draft.error_type

    def _settle(self, raw: Raw) -> None:
        response = RESPONSE.salvage(bytes(raw))
        if response is None:
            return
        self.responses += 1
        self.draft.usage = None
        note_response(self.draft, response)
        note_output(self.draft, response.output or [])
        if self.draft.usage is not None:
            self._total = self.draft.usage if self._total is None else add(self._total, self.draft.usage)


def ws_meter(asked: Asked | None = None) -> WebSocketMeter:
    """A meter for one WebSocket session."""
    return WebSocketMeter(asked)


def ws_error(fault: GatewayError, request_id: str) -> bytes:
    """The text message that tells a WebSocket client of a fault of the gateway."""
    error = faults.openai_error(fault)
    return msgspec.json.encode({"type": "error", "status": fault.status, "request_id": request_id, "error": error})
