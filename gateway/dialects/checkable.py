"""What of an answer can be checked: the form that a request demands, and whether an answer has it. Each API in the
neutral form of `dialects.translate`, whose readers know them.

Checkable is JSON, of a schema or not, and a call of a tool that the client runs and that the model must make. Where
tools of the provider's own could be what satisfies such a demand, it is none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from gateway.call import Asked, Route
from gateway.dialects.replay import attempted
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import Splitter
from gateway.dialects.translate.answers import Reader, gather, object_of
from gateway.dialects.translate.hub import SIDES
from gateway.dialects.translate.hub import Asked as Beside
from gateway.dialects.translate.losses import Losses
from gateway.dialects.translate.neutral import FILTERED, LENGTH, STOP, Choice, Event, Format, Invocation, Question, Text
from gateway.errors import GatewayError
from gateway.ports import Form, Given

# Members of a request that say which form its answer has; the rest of it is not looked at.
FORMS = (
    *("response_format", "text", "output_config", "generationConfig", "generation_config"),
    *("tools", "tool_choice", "toolConfig", "tool_config"),
)
OLD_FORM = "output_format"  # of Anthropic, before it stood in `output_config`
MUST = "any"
NOTHING = Beside()
_ENDS = {"max_output_tokens": LENGTH, "content_filter": FILTERED}
_WHOLE = (b'"response.completed"', b'"response.incomplete"')
_HEAD = 96  # bytes of an event in which its type stands


class Checkable:
    """Implements ports.Checker."""

    def demand(self, route: Route, asked: Asked) -> Form | None:
        side = SIDES.get(route.dialect)
        if side is None or not route.operation or bytes(asked.fields.get("background", b"")) == b"true":
            return None
        known: dict[str, Any] = {}
        losses = Losses()
        try:
            for name in FORMS:
                if name in asked.fields:
                    known[name] = msgspec.json.decode(bytes(asked.fields[name]))
            if OLD_FORM in asked.fields:
                known.setdefault("output_config", {})["format"] = msgspec.json.decode(bytes(asked.fields[OLD_FORM]))
            return _demanded(side.read(known, losses, NOTHING), losses) if known else None
        except (GatewayError, TypeError, AttributeError, *DECODE_FAULTS):
            return None  # of another form than the API's: its upstream will say so

    def reading(self, route: Route, limit: int) -> Reading:
        return Reading(route.dialect, limit)


class Reading:
    """Implements ports.Reading. The events of a stream are read as they come; anything else at the end."""

    def __init__(self, dialect: str, limit: int) -> None:
        self._dialect, self._limit, self._size = dialect, limit, 0
        self.full = False
        self._pieces: list[bytes] = []  # of a document
        self._streams: bool | None = None  # None: nothing has come yet
        self._reader: Reader | None = None
        self._splitter = Splitter()
        self._events: list[Event] = []
        self._last = b""  # the event of the Responses API that holds all of its answer

    def feed(self, plain: bytes) -> None:
        self._size += len(plain)
        if self._size > self._limit:
            self.full = True
            self._pieces, self._events = [], []
        if self.full:
            return
        if self._streams is None and plain.strip():
            self._streams = plain.lstrip()[:1] not in (b"{", b"[")
            side = SIDES.get(self._dialect)
            if self._streams and side is not None and side.reader is not None:
                self._reader = side.reader(NOTHING)
        if not self._streams:
            self._pieces.append(plain)
        elif self._reader is not None:
            self._events += self._reader.feed(plain)
        else:
            self._keep(self._splitter.feed(plain))

    def _keep(self, events: Iterable[tuple[bytes, bytes]]) -> None:
        for _, data in events:
            if any(kind in data[:_HEAD] for kind in _WHOLE):
                self._last = data

    def given(self) -> Sequence[Given] | None:
        try:
            return None if self.full else attempted(self._given)
        except GatewayError:
            return None

    def _given(self) -> Sequence[Given]:
        body = b"".join(self._pieces)
        if self._dialect == "openai_responses":
            self._keep(self._splitter.end())
            return [_response(msgspec.json.decode(self._last)["response"] if self._streams else object_of(body))]
        if self._reader is not None:
            return _choices([*self._events, *self._reader.end()])
        side = SIDES[self._dialect]
        if body.lstrip()[:1] == b"[" and side.reader is not None:  # a stream of Gemini's as an array
            reader = side.reader(NOTHING)
            events = [
                event for chunk in msgspec.json.decode(body) for event in reader.document(reader.take(b"", chunk))
            ]
            return _choices([*events, *reader.end()])
        assert side.document is not None
        return _choices(side.document(object_of(body), NOTHING))


def _demanded(question: Question, losses: Losses) -> Form | None:
    setting, pick = question.settings.get("format"), question.pick
    text: Format | None = setting.value if setting is not None else None
    others = any(field.startswith("tools[") for field in losses.lost)  # tools of the provider's
    must = pick is not None and pick.mode == MUST and bool(question.tools) and (bool(pick.names) or not others)
    if text is None and not must:
        return None
    return Form(
        json=text is not None,
        schema=text.schema if text is not None else None,
        call=must,
        names=pick.names if pick is not None and must else (),
        tools={tool.name: tool.schema for tool in question.tools},
    )


def _choices(events: Iterable[Event]) -> Sequence[Given]:
    return [_choice(choice) for choice in gather(events).choices]


def _choice(choice: Choice) -> Given:
    texts = [part for part in choice.parts if isinstance(part, Text)]
    return Given(
        "".join([part.text for part in texts if not part.refusal]),
        tuple([(part.name, part.arguments) for part in choice.parts if isinstance(part, Invocation)]),
        choice.reason,
        any(part.refusal for part in texts),
    )


def _response(answer: Any) -> Given:
    """Of the Responses API."""
    output = answer["output"]
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    ended = (answer.get("incomplete_details") or {}).get("reason", "") if answer.get("status") == "incomplete" else ""
    return Given(
        "".join([part["text"] for part in parts if part["type"] == "output_text"]),
        tuple([(item["name"], item["arguments"]) for item in output if item["type"] == "function_call"]),
        _ENDS.get(ended, STOP),
        any(part["type"] == "refusal" for part in parts),
    )
