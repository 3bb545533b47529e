"""Amazon Bedrock's runtime: `converse` and `converse-stream`, which have one shape for all models; and what all of its
operations share: the model in the path, the framing of streams, the words of errors.

Source: the API reference of Amazon Bedrock Runtime. `inputTokens` leaves out what was read from or written to the
cache. A stream ends with `messageStop` and, behind it, `metadata`, which states the usage.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from gateway.call import Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import allowance, eventstream, faults, finish, lowering
from gateway.dialects.asking import asked, elements, integer, params, raw_bytes, read_body
from gateway.dialects.base import BaseDialect, inner
from gateway.dialects.body import object_at
from gateway.dialects.eventstream import FrameCutter
from gateway.dialects.meters import Draft, JsonMeter, decode_error, find_object
from gateway.dialects.shape import NO_RAW, Shape, is_set
from gateway.dialects.step_pieces import ConverseTool
from gateway.dialects.streams import EventMeter
from gateway.dialects.usage import as_dict, bedrock_usage
from gateway.errors import GatewayError
from gateway.ports import ErrorAnswer, Meter

CONVERSE = "/model/{modelId}/converse"
_PATH = re.compile(rb"(.*/model/)([^/]+)(/[^/]+/?)")
_STREAMS = (b"/converse-stream", b"/invoke-with-response-stream")
_encode = msgspec.json.Encoder().encode


class _Reasoned(Struct, gc=False):
    text: Any = None


class _Reasoning(Struct, gc=False):
    text: Any = None
    reasoningText: _Reasoned | None = None


class _Block(Struct, gc=False):
    """A content block, or the start or delta of one."""

    text: Any = None
    toolUse: ConverseTool | None = None
    reasoningContent: _Reasoning | None = None


class _Message(Struct, gc=False):
    content: list[_Block] | None = None


class _Output(Struct, gc=False):
    message: _Message | None = None


class Converse(Struct, gc=False):
    """A whole answer, or an event of a stream: their members tell which."""

    output: _Output | None = None
    contentBlockIndex: Any = None
    start: _Block | None = None
    delta: _Block | None = None
    stopReason: Any = None
    usage: Raw = NO_RAW
    serviceTier: Any = None


_converse = Shape(Converse)


def note(draft: Draft, said: Converse) -> None:
    """What is said of an answer as a whole."""
    if type(said.stopReason) is str:
        draft.finish[0] = said.stopReason
    if is_set(said.usage):
        draft.usage = bedrock_usage(said.usage)
    tier = as_dict(said.serviceTier).get("type")
    if type(tier) is str:
        draft.pricing["service_tier"] = tier


def note_block(draft: Draft, key: object, block: _Block) -> None:
    if type(block.text) is str:
        draft.text(block.text)
    if (use := block.toolUse) is not None:
        draft.tool(key, use.toolUseId, use.name)
        if len(use.input) > 2:
            draft.other(bytes(use.input).decode("utf-8", "replace"))
    if (reasoning := block.reasoningContent) is not None:
        draft.other(reasoning.text)
        if reasoning.reasoningText is not None:
            draft.other(reasoning.reasoningText.text)


class ConverseDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        said = _converse.salvage(body)
        if said is None:
            return
        note(self.draft, said)
        message = said.output.message if said.output is not None else None
        for index, block in enumerate((message.content if message is not None else None) or ()):
            note_block(self.draft, index, block)

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage = bedrock_usage(find_object(tail, b"usage"))


class ConverseStream(EventMeter[Converse]):
    shape = _converse
    alarms = (b"", b"")
    early = "max_tokens"

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked, FrameCutter())
        self.blocks: dict[int, None] = {}  # still open, in order

    def take(self, events: list[Converse]) -> bool:
        for event in events:
            note(self.draft, event)
            index = event.contentBlockIndex
            block = event.start or event.delta
            if type(index) is int and block is not None:
                self.blocks[index] = None
                note_block(self.draft, index, block)
            else:
                self.blocks.pop(index, None)
            self.terminal = self.terminal or (is_set(event.usage) and 0 in self.draft.finish)
        return bool(events)

    def finished(self) -> bool:
        return 0 in self.draft.finish


class Bedrock(BaseDialect):
    """What `converse` and `invoke` share."""

    def writes_into(self, route: Route, kind: bytes) -> bool:
        return kind.startswith(eventstream.CONTENT_TYPE)

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        if route.operation and status < 400 and self.writes_into(route, content_type):
            return self.stream(route, asked)
        return super().meter(route, asked, status, content_type)

    def rename(self, route: Route, asked: Asked, model: str) -> tuple[Route, tuple[Edit, ...]]:
        path, mark, query = route.path.partition(b"?")
        match = _PATH.fullmatch(path)
        if match is None:
            return route, ()
        sent = b"%b%b%b%b%b" % (match[1], quote(model, safe=":").encode(), match[3], mark, query)
        return replace(route, path=sent), ()

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        return faults.aws_refusal(fault, request_id)

    def restate(self, route: Route, frame: bytes) -> ErrorAnswer | None:
        events = FrameCutter().feed(frame)
        if not events or events[0][0] != b"error":
            return None
        kind, text = decode_error(events[0][1]) or ("", "")
        status = faults.AWS_STATUS.get(kind[:1].upper() + kind[1:], 500)
        head = [faults.JSON_TYPE, (b"x-amzn-errortype", kind.encode())]
        return ErrorAnswer(status, head, _encode({"message": text}))

    def interruption(self, fault: GatewayError, meter: Meter, request_id: str) -> bytes:
        """An exception; nothing where the stream stops inside a message, which cannot be ended."""
        if isinstance(meter, EventMeter) and meter.broken:
            return b""
        kind = faults.aws_type(fault)
        body = _encode({"message": f"{fault.message} ({fault.code})"})
        return eventstream.exception(kind[:1].lower().encode() + kind[1:].encode(), body)

    def remark(self, note: str) -> bytes:
        """No event is ignored by every client."""
        return b""


class BedrockConverse(Bedrock):
    name = "bedrock_converse"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_body(request.body, ("messages",))
        if found is None:
            return Asked(model=model_in(route), stream=streams(route))
        config = object_at(request.body, found.spans, "inferenceConfig")[0]
        tools = object_at(request.body, found.spans, "toolConfig")[0]
        return asked(
            found,
            params(config),
            model=model_in(route),
            stream=streams(route),
            max_tokens=integer(config.get("maxTokens")),
            messages=elements(found, "messages"),
            system=raw_bytes(found.fields.get("system")),
            tools=raw_bytes(tools.get("tools")),
        )

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        config = allowance.members(asked.fields.get("inferenceConfig"))
        names, server = allowance.declared_to_bedrock(asked.tools)
        tier = allowance.members(asked.fields.get("serviceTier")).get("type")
        priced = allowance.prices_by({"service_tier": tier}) if tier is not None else {}
        return Bounds(allowance.largest(config, ("maxTokens",)), 1, "", server, names, priced)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return ConverseDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return ConverseStream(asked)

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        """None where thinking has a budget of its own, which would have to stay below."""
        if not route.operation or b"budget" in raw_bytes(asked.fields.get("additionalModelRequestFields")):
            return None
        return lowering.cap_nested(asked, body, ceiling, "inferenceConfig", ("maxTokens",))

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        stream = inner(meter)
        if not isinstance(stream, ConverseStream):
            return b""
        events: list[tuple[bytes, Mapping[str, Any]]] = [
            (b"contentBlockStop", {"contentBlockIndex": index}) for index in stream.blocks
        ]
        if stream.unfinished:
            said = {"tollgate": finish.one_line(note)}
            events.append((b"messageStop", {"stopReason": "max_tokens", "additionalModelResponseFields": said}))
        events.append((b"metadata", {"usage": finish.bedrock_usage(usage), "metrics": {"latencyMs": 0}}))
        return b"".join([eventstream.event(name, _encode(data)) for name, data in events])


def model_in(route: Route) -> str:
    match = _PATH.fullmatch(route.path.partition(b"?")[0])
    return unquote_to_bytes(match[2]).decode("utf-8", "replace") if match is not None else ""


def streams(route: Route) -> bool:
    return route.path.partition(b"?")[0].rstrip(b"/").endswith(_STREAMS)
