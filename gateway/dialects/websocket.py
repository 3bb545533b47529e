"""Messages of a Responses or realtime WebSocket: each response brings its own usage, the session sums them.

Messages are looked at one by one (they come framed), and only those that can matter are decoded. What was asked for and
is not told of until the session ends leaves it `pending`: more may be billed than the sum.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Usage
from gateway.dialects import faults
from gateway.dialects.meters import Draft, first_text
from gateway.dialects.responses_facts import ENDINGS, RESPONSE, note_error, note_output, note_response
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.usage import add, as_dict, openai_usage
from gateway.errors import GatewayError
from gateway.members import may_repeat
from gateway.ports import Used

REMEMBERED = 16  # models that a client asked for
UNCLEAR = "(unclear)"  # the model of a message that may name several, or that cannot be read
HEARD = "conversation.item.input_audio_transcription.completed"


class _Message(Struct, gc=False):
    type: Any = None
    response: Raw = NO_RAW
    session: Any = None
    model: Any = None
    usage: Raw = NO_RAW
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
        self._due = self._begun = 0  # answers that were asked for and have not begun; that have and are not over
        self._asks = False  # the last message of the client asks for an answer
        self._unread = False  # something may have been used that is not known
        self._ear = ""  # the model that writes down what is said,
        self._heard: Usage | None = None  # and what that took

    def feed_text(self, direction: str, data: bytes | str) -> None:
        """`direction` says who sent the message: "client" or "upstream". Never raises."""
        text = data.encode("utf-8", "replace") if isinstance(data, str) else data
        if direction != "upstream":
            self._client(text)
        elif b'"response.' in text or b'"error"' in text or b'"session.' in text or b"input_audio_transcr" in text:
            self._upstream(text)

    def missed(self, direction: str) -> None:
        """A message could not be read."""
        if direction == "upstream":
            self._unread = True
        else:
            self._models.add(UNCLEAR)

    def withheld(self) -> None:
        """The last message of the client did not go on."""
        self._due -= self._asks
        self._asks = False

    def used(self) -> Used | None:
        """The sum of all answers; None where none has come to its end since the last time."""
        if self.responses == self._told or (self._total is None and self._heard is None):
            return None
        self._told = self.responses
        return Used(self.draft.model, self._total or Usage(), self.draft.pricing, self._parts())

    def strays(self, model: str) -> bool:
        """Did the client ask for another model than this one?"""
        return bool(self._models - {model.lower()})

    def end(self) -> Answer:
        self.draft.usage = self._total
        self.draft.parts = self._parts()
        answer = self.draft.answer(self._asked, complete=not self.failed)
        answer.pending = bool(self._due or self._begun or self._unread)
        return answer

    def _parts(self) -> tuple[tuple[Usage, str, dict[str, str]], ...]:
        return () if self._heard is None else ((self._heard, self._ear, {}),)

    def _client(self, text: bytes) -> None:
        """The model a response or session is asked from, and whether an answer is."""
        self._asks = False
        if b"response.create" not in text and b"session.update" not in text and b"\\" not in text:
            return
        message = _message.salvage(text)
        if message is None and text.lstrip()[:1] == b"{":  # other parsers take NaN, for one
            self._models.add(UNCLEAR)
        if message is None or message.type not in {"response.create", "session.update"}:
            return
        if message.type == "response.create":
            self._due += 1
            self._asks = True
        if text.count(b'"model"') > 1 and is_ambiguous(text):
            self._models.add(UNCLEAR)
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
        if message.type == "response.created":
            self._begin()
        elif message.type in ENDINGS and is_set(message.response):
            self._settle(message.response)
        elif message.type in {"session.created", "session.updated"}:
            session = as_dict(message.session)
            self.draft.named(session.get("model"), "")
            self._ear = ear_of(session) or self._ear
        elif message.type == HEARD:
            self._hear(message.usage)
        elif message.type == "error":
            self._due -= self._due > 0
            if is_set(message.error):
                note_error(self.draft, message.error)
            else:
                self.draft.error(first_text(message.code), first_text(message.message))
            self.failed = self.draft.error_type

    def _begin(self) -> None:
        self._due -= self._due > 0
        self._begun += 1

    def _hear(self, raw: Raw) -> None:
        """What was said was written down, by another model; some count seconds, which have no price here."""
        usage = openai_usage(raw) if is_set(raw) else None
        if usage is None:
            self._unread = True
            return
        self.responses += 1
        self._heard = usage if self._heard is None else add(self._heard, usage)

    def _settle(self, raw: Raw) -> None:
        response = RESPONSE.salvage(bytes(raw))
        if response is None:
            return
        if not self._begun:
            self._begin()
        self._begun -= 1
        self.responses += 1
        self.draft.usage = None
        note_response(self.draft, response)
        note_output(self.draft, response.output or [])
        if self.draft.usage is not None:
            self._total = self.draft.usage if self._total is None else add(self._total, self.draft.usage)


def is_ambiguous(text: bytes) -> bool:
    """May a member be repeated in it, or can all of it not be read?"""
    try:
        return may_repeat(text, msgspec.json.decode(text))
    except DECODE_FAULTS:
        return True


def ear_of(session: Mapping[str, Any]) -> str:
    """The model that writes down what is said to a session; both APIs have another place for it."""
    heard = as_dict(as_dict(session.get("audio")).get("input"))
    places = (session.get("input_audio_transcription"), heard.get("transcription"))
    return first_text(*(as_dict(place).get("model") for place in places))


def ws_meter(asked: Asked | None = None) -> WebSocketMeter:
    """A meter for one WebSocket session."""
    return WebSocketMeter(asked)


def ws_error(fault: GatewayError, request_id: str) -> bytes:
    """The text message that tells a WebSocket client of a fault of the gateway."""
    error = faults.openai_error(fault)
    return msgspec.json.encode({"type": "error", "status": fault.status, "request_id": request_id, "error": error})
