"""Cohere's own API: v2/chat, and of v1 and v2 embed and rerank; v1/chat and v1/generate.

Prices are for what the answers call billed units, and so is the usage; see gateway.dialects.native_usage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Raw

from gateway.call import Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import allowance, faults, finish, lowering
from gateway.dialects.asking import asked, elements, flag, limit, model_name, raw_bytes, read_folded
from gateway.dialects.base import BaseDialect, closing, inner
from gateway.dialects.cohere_answers import FAILURES, CohereDocument, CohereStream
from gateway.dialects.meters import first_text
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import parse_frame, without_done
from gateway.dialects.usage import as_dict
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, Meter

WRITES = frozenset(("chat", "text_completion"))  # operations that have an output to be limited
EVENTS, JSON, LINES = b"text/event-stream", b"application/json", (b"application/stream+json", b"application/x-ndjson")
OLD = "/v1/"  # how the templates of the first version begin
_encode = msgspec.json.Encoder().encode


class Cohere(BaseDialect):
    name = "cohere"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_folded(request.body, ("messages", "chat_history"))
        if found is None:
            return Asked()
        fields = found.fields
        return asked(
            found,
            model=model_name(fields),
            stream=flag(fields.get("stream")),
            max_tokens=limit(fields, "max_tokens"),
            messages=_said(elements(found, name) for name in ("messages", "chat_history", "message", "prompt"))
            if route.operation in WRITES
            else (),
            system=raw_bytes(fields.get("preamble")),
            tools=raw_bytes(fields.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return allowance.cohere(asked) if route.operation in WRITES else Bounds(0)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return CohereDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return CohereStream(asked, old=route.template.startswith(OLD))

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        if (
            route.operation in WRITES
            and asked.stream
            and status < 400
            and not content_type.startswith((EVENTS, JSON))
            and route.template.startswith(OLD)
        ):
            return CohereStream(asked, lines=True, old=True)
        return super().meter(route, asked, status, content_type)

    def writes_into(self, route: Route, kind: bytes) -> bool:
        return kind.startswith(EVENTS) or (route.operation in WRITES and kind.startswith(LINES))

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        if route.operation not in WRITES:
            return None
        return lowering.cap_flat(asked, body, ceiling, ("max_tokens",), "max_tokens")

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_cohere(asked, body, effort)

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        """As lines of JSON it has no place for the note."""
        stream = inner(meter)
        if not isinstance(stream, CohereStream):
            return b""
        if not stream.old:
            return self.remark(note) + _new_end(stream, request_id, usage)
        return _old_end(stream, {"finish_reason": stream.early}, request_id, usage)

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        more = faults.headers(fault, fault.status, (b"x-request-id", request_id.encode()))
        return ErrorAnswer(fault.status, more, _encode(_error(fault.message, request_id, fault.code)))

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        event = parse_frame(frame)
        try:
            value = as_dict(msgspec.json.decode(event[1] if event is not None else frame.strip().partition(b"\n")[0]))
        except DECODE_FAULTS:
            return None
        delta = as_dict(value.get("delta"))
        reason = first_text(delta.get("finish_reason"), value.get("finish_reason"))
        said = first_text(delta.get("error"), value.get("err"), value.get("error"), value.get("message"))
        if reason not in FAILURES and not said:
            return None
        status = value.get("status_code")
        status = status if type(status) is int and 400 <= status <= 599 else 500
        return ErrorAnswer(status, [faults.JSON_TYPE], _encode(_error(said or reason, first_text(value.get("id")))))

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """The event that ends the stream, with a finish reason that is none of success."""
        stream = inner(meter)
        if isinstance(stream, CohereStream) and stream.old:
            said = {"finish_reason": "ERROR", "error": fault.message, "error_type": fault.code}
            return closing(meter) + _old_end(stream, said, request_id, None)
        delta = {"error": fault.message, "finish_reason": "ERROR", "error_type": fault.code}
        return closing(meter) + finish.event({"type": "message-end", "delta": delta})

    def unfinished(self, tail: bytes) -> bytes:
        return without_done(tail)


def _said(parts: Iterable[tuple[Raw, ...]]) -> tuple[Raw, ...]:
    """All that was said, the newest last. The message of v1 stands beside what came before it."""
    return tuple([item for items in parts for item in items])


def _error(message: str, request_id: str, code: str = "") -> dict[str, Any]:
    return {"id": request_id, "message": message, **({"error_type": code} if code else {})}


def _new_end(stream: CohereStream, request_id: str, usage: Usage) -> bytes:
    """Ends what is open, then the message."""
    ends = [finish.event({"type": f"{block}-end", "index": index}) for index, block in stream.open.items()]
    stated = {"finish_reason": stream.early, "usage": finish.cohere_usage(usage)}
    head = {"type": "message-end", "id": stream.draft.response_id or request_id}
    return b"".join(ends) + finish.event({**head, "delta": stated})


def _old_end(stream: CohereStream, said: dict[str, Any], request_id: str, usage: Usage | None) -> bytes:
    """With all that was said in it, as v1 repeats it. `usage`: None where it failed, which v1/generate names apart."""
    draft = stream.draft
    generates = "prompt" in stream.asked.fields
    kind = "stream-error" if generates and usage is None else "stream-end"
    id, text = draft.response_id or request_id, draft.said
    stated = {} if usage is None else {"meta": finish.cohere_usage(usage)}
    reason = said["finish_reason"]
    response: dict[str, Any] = {"generation_id": id, "text": text, "finish_reason": reason}
    if generates:
        response = {"id": id, "generations": [{"id": id, "text": text, "finish_reason": reason}]}
    end = {"is_finished": True, "event_type": kind, **said, "response": {**response, **stated}}
    if kind == "stream-error":
        end = {**end, "err": said["error"]}
    return _encode(end) + b"\n" if stream.lines else finish.event(end, named=False)
