"""Gemini: generateContent, streamGenerateContent (`alt=sse`, or a JSON array), embedContent, countTokens.

The model stands in the path. Every chunk repeats the usage so far: the last one counts. There is no terminal event:
a stream is complete once each candidate has its finish reason, or the prompt was blocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage, UsageSource
from gateway.dialects import allowance, faults, finish, last_turn, lowering
from gateway.dialects.asking import asked, elements, first_of, limit, params, raw_bytes, read_body
from gateway.dialects.base import BaseDialect, closing, inner, path_model
from gateway.dialects.body import nested
from gateway.dialects.json_array import ArrayCutter
from gateway.dialects.meters import Draft, JsonMeter, decode_error, find_object
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.sse import parse_frame
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import as_dict, gemini_usage
from gateway.errors import BadBody, GatewayError
from gateway.ports import ErrorAnswer, LastTurn, Meter


class _Call(Struct, gc=False):
    id: Any = None
    name: Any = None
    args: Raw = NO_RAW


class _Part(Struct, gc=False):
    text: Any = None
    thought: Any = None
    functionCall: _Call | None = None


class _Content(Struct, gc=False):
    parts: list[_Part] | None = None


class _Candidate(Struct, gc=False):
    index: Any = 0
    content: _Content | None = None
    finishReason: Any = None


class Chunk(Struct, gc=False):
    candidates: list[_Candidate] | None = None
    usageMetadata: Raw = NO_RAW
    modelVersion: Any = None
    responseId: Any = None
    promptFeedback: Any = None
    error: Raw = NO_RAW


_chunk = Shape(Chunk)
GENERATES = "generate_content"  # operation of the routes that make text


def note(draft: Draft, chunk: Chunk, seen: set[int]) -> None:
    """Add what an answer or a chunk of one says; `seen` gathers the candidates that exist."""
    draft.named(chunk.modelVersion, chunk.responseId)
    for candidate in chunk.candidates or ():
        index = candidate.index if type(candidate.index) is int else 0
        seen.add(index)
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                _note_part(draft, index, part)
        reason = candidate.finishReason
        if reason and type(reason) in (str, int):
            draft.finish[index] = str(reason)
    if chunk.promptFeedback is not None:
        blocked = as_dict(chunk.promptFeedback).get("blockReason")
        if blocked and type(blocked) is str:
            draft.finish[0] = blocked
    if is_set(chunk.usageMetadata):
        draft.usage, pricing = gemini_usage(chunk.usageMetadata)
        draft.pricing.update(pricing)


def _note_part(draft: Draft, index: int, part: _Part) -> None:
    if type(part.text) is str:
        if part.thought is True or index:
            draft.other(part.text)
        else:
            draft.text(part.text)
    call = part.functionCall
    if call is not None:
        draft.tool((index, object()), call.id, call.name)
        if len(call.args) > 2:
            draft.other(bytes(call.args).decode("utf-8", "replace"))


class GeminiDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        try:
            chunks = _chunk.many.decode(body) if body.lstrip()[:1] == b"[" else [_chunk.salvage(body)]
        except DECODE_FAULTS:
            return
        for chunk in chunks:
            if chunk is not None:
                note(self.draft, chunk, set())
                if is_set(chunk.error):
                    self.draft.error(*(decode_error(b'{"error":%b}' % bytes(chunk.error)) or ("error", "")))

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage, self.draft.pricing = gemini_usage(find_object(tail, b"usageMetadata"))


class GeminiStream(EventMeter[Chunk]):
    shape = _chunk
    alarms = (b"error", b'"finishReason"')
    early = "MAX_TOKENS"
    uniform = False

    def __init__(self, asked: Asked, array: ArrayCutter | None = None) -> None:
        super().__init__(asked, array)
        self.array = array
        self._seen: set[int] = set()

    def take(self, events: list[Chunk]) -> bool:
        for chunk in events:
            note(self.draft, chunk, self._seen)
            if is_set(chunk.error):
                self.fail(*(decode_error(b'{"error":%b}' % bytes(chunk.error)) or ("error", "")))
        finish = self.draft.finish
        self.terminal = not self.failed and bool(finish) and finish.keys() >= self._seen
        return bool(events)

    def choices(self) -> Iterable[int]:
        return sorted(self._seen) or (0,)

    def end(self) -> Answer:
        """The usage of early chunks says little of the output: in a stream that was cut it is left to be estimated."""
        answer = super().end()
        if answer.usage is not None and not answer.complete:
            answer.usage_source = UsageSource.ESTIMATED
        return answer


class Gemini(BaseDialect):
    name = "gemini"

    def question(self, route: Route, request: Request) -> Asked:
        model, method = path_model(route)
        stream = method == "streamGenerateContent"
        found = read_body(request.body, ("contents",))
        if found is None:
            return Asked(model=model, stream=stream)
        fields = found.fields
        _refuse_twins(fields)
        config: Mapping[str, Raw] = {}
        for name in ("generationConfig", "generation_config"):
            if name in fields and request.body[found.spans[name][0]] == 0x7B:
                config, _ = nested(request.body, found.spans[name], name)
                _refuse_twins(config, f"{name}.")
        return asked(
            found,
            params(config),
            max_tokens=limit(config, "maxOutputTokens", "max_output_tokens"),
            model=model,
            stream=stream,
            messages=elements(found, "contents" if "contents" in fields else "content"),
            system=raw_bytes(first_of(fields, "systemInstruction", "system_instruction")),
            tools=raw_bytes(fields.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return allowance.gemini(asked)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return GeminiDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return GeminiStream(asked)

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        if (
            route.operation
            and asked.stream
            and status < 400
            and b"event-stream" not in content_type
            and not wants_sse(route)
        ):
            return GeminiStream(asked, ArrayCutter())
        return super().meter(route, asked, status, content_type)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        return lowering.cap_gemini(asked, body, ceiling) if route.operation == GENERATES else None

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return lowering.lower_gemini(asked, body, effort, model or asked.model)

    def rename(self, route: Route, asked: Asked, model: str) -> tuple[Route, tuple[Edit, ...]]:
        return lowering.rename_in_path(route, asked, model)

    def remark(self, note: str) -> bytes:
        """The google-genai SDK takes any line but `data: ` for JSON."""
        return b""

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        return last_turn.gemini(value)

    def answer_text(self, route: Route, asked: Asked, body: bytes, *, stream: bool) -> str | None:
        return last_turn.gemini_answer(body)

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        """The note stands in `finishMessage`: neither an array nor this API's own SDK knows comments."""
        stream = inner(meter)
        if not isinstance(stream, GeminiStream):
            return b""
        draft = stream.draft
        head = {"modelVersion": draft.model or asked.model, "responseId": draft.response_id or request_id}
        chunk = finish.gemini(head, stream.unfinished, usage, note)
        return b",\n%b]" % chunk if stream.array is not None else b"data: %b\n\n" % chunk

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        """With the route at hand, a stream without `alt=sse` gets its error inside an array, as from the API."""
        return faults.gemini_refusal(fault, array=stream and route is not None and not wants_sse(route))

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        event = parse_frame(frame)
        data = event[1] if event is not None else frame
        try:
            value = msgspec.json.decode(data)
        except DECODE_FAULTS:
            return None
        if type(value) is list and value:
            value = value[0]
        error = as_dict(as_dict(value).get("error"))
        if not error:
            return None
        status = error.get("code")
        status = status if type(status) is int and 400 <= status <= 599 else 500
        return ErrorAnswer(status, [faults.JSON_TYPE], data)

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        error = msgspec.json.encode(faults.gemini_error(fault))
        if isinstance(meter, GeminiStream) and meter.array is not None:
            return b"%b%b]" % (b"\n," if meter.array.elements else b"[", error)
        return b"%bdata: %b\n\n" % (closing(meter), error)


def wants_sse(route: Route) -> bool:
    return b"alt=sse" in route.path.partition(b"?")[2].split(b"&")


def _refuse_twins(fields: Mapping[str, Raw], prefix: str = "") -> None:
    """Protocol Buffers' JSON takes `generation_config` and `generationConfig` for the same field."""
    if not any("_" in key for key in fields):
        return
    seen: set[str] = set()
    for key in fields:
        folded = key.replace("_", "").casefold()
        if folded in seen:
            name = prefix + key
            raise BadBody(f"The field '{name}' appears more than once.", code="duplicate_key", param=name)
        seen.add(folded)
