"""OpenAI Responses: create, retrieve, cancel, compact, input_items, input_tokens.

The usage stands in the response object: in the body of a plain answer, in `response.completed`, `.incomplete` or
`.failed` of a stream. A background response is created without usage and settles on `GET /responses/{id}`; that GET
bills only responses that say `background`, since any other was billed when it was created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import allowance, faults, finish, last_turn, lowering, replay
from gateway.dialects.asking import asked, elements, flag, limit, member, model_name, raw_bytes, read_body
from gateway.dialects.base import BaseDialect, closing, inner, plain_path
from gateway.dialects.meters import JsonMeter, decode_error, find_object, first_text
from gateway.dialects.responses_facts import ENDINGS, ITEM, RESPONSE, note_error, note_item, note_output, note_response
from gateway.dialects.responses_output import NOWHERE, Output, index_of, object_of
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.sse import parse_frame, without_done
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import as_dict, openai_usage
from gateway.dialects.websocket import WebSocketMeter
from gateway.dialects.websocket_frames import FrameTap
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, LastTurn, Meter, Tap

BEGINNINGS = frozenset(("response.created", "response.in_progress", "response.queued"))  # say who is going to answer


class StreamEvent(Struct, gc=False):
    type: Any = None
    response: Raw = NO_RAW
    item: Raw = NO_RAW
    delta: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    sequence_number: Any = None
    error: Raw = NO_RAW
    code: Any = None
    message: Any = None


class ResponseDocument(JsonMeter):
    def __init__(self, asked: Asked, status: int, created: bool) -> None:
        super().__init__(asked, status)
        self._created = created

    def read(self, body: bytes) -> None:
        response = RESPONSE.salvage(body)
        if response is None:
            return
        if response.object is None and is_set(response.error) and response.status is None:
            self.draft.error(*(decode_error(body) or ("error", "")))
            return
        note_response(self.draft, response, billed=self._created or response.background is True)
        if self._created or response.background is True:
            note_output(self.draft, response.output or [])

    def read_tail(self, tail: bytes) -> None:
        if self._created:
            self.draft.usage = openai_usage(find_object(tail, b"usage"))


class ResponseStream(EventMeter[StreamEvent]):
    shape = Shape(StreamEvent)
    alarms = (b"error", b'"response":')
    early = "max_output_tokens"

    def __init__(self, asked: Asked, created: bool) -> None:
        super().__init__(asked)
        self._created = created
        self.sequence = -1
        self.output = Output()
        self._kept = flag(asked.fields.get("background"))  # its client may leave, and asks by the id that comes first

    def take(self, events: list[StreamEvent]) -> bool:
        at: tuple[Any, Any, str] = NOWHERE
        said: list[str] = []
        alive = self.started or self._kept
        self.begun = self.begun or bool(events)
        for event in events:
            if type(event.sequence_number) is int:
                self.sequence = event.sequence_number
            kind = event.type
            if type(kind) is not str:
                alive = True
                continue
            alive = alive or kind not in BEGINNINGS
            if kind.endswith(".delta"):
                if type(event.delta) is str:
                    place = (event.output_index, event.content_index or event.summary_index, kind)
                    if place != at:
                        self._said(at, said)
                        at = place
                    said.append(event.delta)
                continue
            self._said(at, said)
            self._milestone(kind, event)
        self._said(at, said)
        return alive

    def _said(self, at: tuple[Any, Any, str], said: list[str]) -> None:
        """Deltas of one part, in a row."""
        if not said:
            return
        text = "".join(said)
        said.clear()
        item, part, kind = at
        self.output.said((index_of(item), index_of(part), kind), text)
        if kind == "response.output_text.delta":
            self.draft.text(text)
        elif kind == "response.refusal.delta":
            self.draft.refusal(text)
        elif "audio.delta" not in kind:
            self.draft.other(text)

    def _milestone(self, kind: str, event: StreamEvent) -> None:
        if kind in {"response.output_item.added", "response.output_item.done"}:
            self._item(kind, event)
        elif kind == "response.content_part.done":
            self.output.closed(index_of(event.output_index), index_of(event.content_index))
        elif is_set(event.response):
            self._response(kind, event.response)
        elif kind == "error":
            self._error(event)

    def _item(self, kind: str, event: StreamEvent) -> None:
        raw = bytes(event.item)
        item = ITEM.salvage(raw)
        if item is not None:
            note_item(self.draft, item)
            (self.output.begun if kind.endswith("added") else self.output.done)(index_of(event.output_index), raw)

    def _response(self, kind: str, raw: Raw) -> None:
        text = bytes(raw)
        response = RESPONSE.salvage(text)
        if response is None:
            return
        if kind in ENDINGS:
            note_response(self.draft, response, billed=self._created or response.background is True)
            for item in response.output or ():
                note_item(self.draft, item)
            self.terminal = True
            if kind == "response.failed":
                self.fail(self.draft.error_type, self.draft.error_message)
        else:
            self.draft.named(response.model, response.id)
            self.output.opened(text)

    def _error(self, event: StreamEvent) -> None:
        if is_set(event.error):
            note_error(self.draft, event.error)
            self.fail(self.draft.error_type, self.draft.error_message)
        else:
            self.fail(first_text(event.code, "error"), first_text(event.message))

    def error_event(self, data: bytes) -> None:
        event = self.shape.salvage(data)
        if event is None:
            super().error_event(data)
            return
        if type(event.sequence_number) is int:
            self.sequence = event.sequence_number
        self._error(event)


class OpenAIResponses(BaseDialect):
    name = "openai_responses"
    ping = b": ping\n\n"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_body(request.body, ("input",))
        if found is None:
            return Asked(stream=b"stream=true" in route.path.partition(b"?")[2].split(b"&"))
        fields = found.fields
        effort = member(fields.get("reasoning"), "effort")
        return asked(
            found,
            {"reasoning.level": effort} if effort else None,
            model=model_name(fields),
            stream=flag(fields.get("stream")),
            max_tokens=limit(fields, "max_output_tokens"),
            messages=elements(found, "input"),
            system=raw_bytes(fields.get("instructions")),
            tools=raw_bytes(fields.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return allowance.responses(asked)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return ResponseDocument(asked, status, creates(route))

    def stream(self, route: Route, asked: Asked) -> Meter:
        return ResponseStream(asked, creates(route))

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        if not answers(route):
            return None
        return lowering.cap_flat(asked, body, ceiling, ("max_output_tokens",), "max_output_tokens")

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_openai(asked, body, effort, model or asked.model)

    def tap(self, extensions: bytes) -> Tap:
        return FrameTap(WebSocketMeter(), extensions)

    def streamed(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return replay.attempted(lambda: replay.response_stream(body))

    def gathered(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return replay.attempted(lambda: replay.response_document(body))

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        return last_turn.responses(value)

    def said(self, document: bytes) -> str | None:
        return last_turn.response_answer(document)

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if not isinstance(stream, ResponseStream):
            return b""
        draft = stream.draft
        events, output = stream.output.ending()
        response = {
            **bare(draft.response_id or f"resp_{request_id}", draft.model or asked.model),
            **object_of(stream.output.head),
            "status": "incomplete",
            "incomplete_details": {"reason": stream.early},
            "output": output,
            "usage": finish.responses_usage(usage),
        }
        events.append({"type": "response.incomplete", "response": response})
        return self.remark(note) + finish.numbered(events, stream.sequence + 1)

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        return faults.openai_refusal(fault, request_id)

    def last_word(self, fault: GatewayError, request_id: str, names: Mapping[bytes, bytes]) -> ErrorAnswer | None:
        """Codex tries every unexpected HTTP status of a stream five times more (0.169: `stream_max_retries`). Final to
        it is a stream that fails for `insufficient_quota`."""
        if not names.get(b"originator", names.get(b"user-agent", b"")).lower().startswith(b"codex"):
            return None
        headers = [(b"content-type", b"text/event-stream"), *faults.headers(fault, fault.status)[1:]]
        return ErrorAnswer(200, headers, failed(fault, request_id))

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        event = parse_frame(frame, beyond=[kind.encode() for kind in BEGINNINGS])
        if event is None:
            return None
        name, data = event
        try:
            value = as_dict(msgspec.json.decode(data))
        except DECODE_FAULTS:
            return None
        kind = value.get("type")
        if kind == "response.failed":
            error = as_dict(as_dict(value.get("response")).get("error"))
            return ErrorAnswer(faults.openai_status(error), [faults.JSON_TYPE], msgspec.json.encode({"error": error}))
        if name == b"error" or kind == "error" or type(value.get("error")) is dict:
            error = value["error"] if type(value.get("error")) is dict else value
            body = data if error is not value else msgspec.json.encode({"error": value})
            return ErrorAnswer(faults.openai_status(error), [faults.JSON_TYPE], body)
        return None

    def unfinished(self, tail: bytes) -> bytes:
        return without_done(tail)

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """`response.failed` with the next sequence number: the only end that clients take for a failure at once. A
        stream that has not begun begins: else the SDK's helper raises for the missing beginning alone."""
        prefix = closing(meter)
        stream = inner(meter)
        sequence, response_id, model = 0, "", ""
        if isinstance(stream, ResponseStream):
            sequence, response_id, model = stream.sequence + 1, stream.draft.response_id, stream.draft.model
        if not sequence and not response_id:
            begun = {**bare(f"resp_{request_id}", model), "status": "in_progress"}
            prefix += finish.numbered([{"type": "response.created", "response": begun}], 0)
            sequence = 1
        return prefix + failed(fault, request_id, response_id, model, sequence)


def failed(fault: GatewayError, request_id: str, response_id: str = "", model: str = "", sequence: int = 0) -> bytes:
    error = faults.openai_error(fault)
    response = {
        **bare(response_id or f"resp_{request_id}", model),
        "status": "failed",
        "error": {name: error[name] for name in ("code", "message", "tollgate_code") if name in error},
    }
    return finish.numbered([{"type": "response.failed", "response": response}], sequence)


def bare(response_id: str, model: str) -> dict[str, Any]:
    """The members that clients expect of any response object."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": 0,
        "status": None,
        "model": model,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
    }


def answers(route: Route) -> bool:
    """Does this route make a response whose length can be limited?"""
    return bool(route.operation) and plain_path(route).rstrip(b"/").endswith(b"responses")


def creates(route: Route) -> bool:
    """Does this route make a response (or a compaction), rather than look at one made before?"""
    last = plain_path(route).rstrip(b"/").rpartition(b"/")[2]
    return last in {b"responses", b"compact"}
