"""OpenAI embeddings: tokens in, none out. Bodies may be large; their usage stands at the end."""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct

from gateway.call import Asked, Bounds, Request, Route
from gateway.dialects.asking import asked, flag, model_name, read_body
from gateway.dialects.meters import JsonMeter, decode_error, find_object
from gateway.dialects.openai_chat import ChatStream, OpenAIFamily
from gateway.dialects.shape import NO_RAW, Shape, is_set
from gateway.dialects.usage import openai_usage
from gateway.ports import Meter


class _Embeddings(Struct, gc=False):
    id: Any = None
    model: Any = None
    usage: Raw = NO_RAW
    error: Raw = NO_RAW


_embeddings = Shape(_Embeddings)


class EmbeddingsDocument(JsonMeter):
    def read(self, body: bytes) -> None:
        answer = _embeddings.salvage(body)
        if answer is None:
            return
        self.draft.named(answer.model, answer.id)
        if is_set(answer.usage):
            self.draft.usage = openai_usage(answer.usage)
        if is_set(answer.error):
            facts = decode_error(body)
            if facts:
                self.draft.error(*facts)

    def read_tail(self, tail: bytes) -> None:
        self.draft.usage = openai_usage(find_object(tail, b"usage"))


class OpenAIEmbeddings(OpenAIFamily):
    name = "openai_embeddings"

    def question(self, route: Route, request: Request) -> Asked:
        found = read_body(request.body, ())
        if found is None:
            return Asked()
        return asked(found, model=model_name(found.fields), stream=flag(found.fields.get("stream")))

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return Bounds(0)

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return EmbeddingsDocument(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        return ChatStream(asked)
