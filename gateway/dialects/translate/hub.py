"""Translation put together: a request of one dialect for an upstream of another, and the answer back.

Rules
1. Every pair of dialects meets in the neutral form; a line of `SIDES` is all that this module knows of each.
2. A request is carried, or refused by name (see `losses`): a GatewayError, before anything is sent.
3. A stream is a success for the client only where it was one for the upstream; each cut and each error stays one.
4. An error of the upstream keeps its status and its message; its kind is said in the client's words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from gateway.dialects.blame import blame
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.translate import (
    chat_answers,
    chat_reader,
    chat_writer,
    gemini_answers,
    gemini_reader,
    gemini_writer,
    messages_answers,
    messages_reader,
    messages_writer,
    responses_answers,
    responses_reader,
)
from gateway.dialects.translate.answers import Reader, Writer, gather, object_of, written
from gateway.dialects.translate.chat_answers import ChatReader, ChatWriter
from gateway.dialects.translate.common import decode, encode
from gateway.dialects.translate.gemini_answers import GeminiReader, GeminiWriter
from gateway.dialects.translate.losses import Losses
from gateway.dialects.translate.messages_answers import MessagesReader, MessagesWriter
from gateway.dialects.translate.neutral import Event, Failed, Question
from gateway.dialects.translate.responses_answers import ResponsesWriter
from gateway.errors import GatewayError, Untranslatable

MAX_MESSAGE = 2000  # of an upstream's error that is no error object
TOO_LONG = "context_length_exceeded"  # OpenAI's code: what its clients shorten a conversation for


class Asked(Struct, frozen=True):
    """What is said beside the body."""

    model: str = ""  # in the path (Gemini); else the body says it
    stream: bool = False  # the same
    array: bool = False  # the client takes its stream as a JSON array
    droppable: tuple[str, ...] = ()
    usage: bool = True  # streams of the upstream may be asked for usage
    max_tokens: int = 0  # the model's own limit of output; 0: unknown
    send_model: str = ""  # in place of the one asked for
    expected: Callable[[], int] = int  # input tokens, for an API that states them before the upstream does; 0: unknown
    request_id: str = ""
    now: int = 0  # seconds since the epoch


class Translated(Struct, frozen=True):
    """A request in the words of the upstream."""

    path: bytes
    body: bytes
    question: Question
    dropped: tuple[str, ...] = ()  # fields that the operator lists as droppable, and which were there


class Side(Struct, frozen=True):
    """What a dialect can do. Those that only a client speaks have no `ask` and no `reader`."""

    read: Callable[[dict[str, Any], Losses, Asked], Question]
    writer: Callable[[Question, dict[str, Any], Asked], Writer]
    whole: Callable[[Iterable[Event], dict[str, Any], Asked], dict[str, Any]]
    refuse: Callable[[Failed], dict[str, Any]]
    ask: Callable[[Question, Losses, Asked], tuple[bytes, dict[str, Any]]] | None = None
    reader: Callable[[Asked], Reader] | None = None
    document: Callable[[dict[str, Any], Asked], list[Event]] | None = None
    failure: Callable[[dict[str, Any]], Failed] = chat_answers.failure


def _ask_gemini(question: Question, losses: Losses, asked: Asked) -> tuple[bytes, dict[str, Any]]:
    method = "streamGenerateContent?alt=sse" if question.stream else "generateContent"
    path = f"/v1beta/models/{quote(question.model, safe='')}:{method}"
    return path.encode(), gemini_writer.write(question, losses)


def _thinks(body: dict[str, Any]) -> bool:
    """Does a client of Messages ask for thinking?"""
    thinking = body.get("thinking")
    return type(thinking) is dict and thinking.get("type") in ("enabled", "adaptive")


SIDES: Mapping[str, Side] = MappingProxyType(
    {
        "openai_chat": Side(
            read=lambda body, losses, asked: chat_reader.read(body, losses),
            writer=lambda question, body, asked: ChatWriter(usage=question.usage, created=asked.now),
            whole=lambda events, body, asked: chat_answers.write(gather(events), created=asked.now),
            refuse=chat_answers.error_body,
            ask=lambda question, losses, asked: (
                b"/v1/chat/completions",
                chat_writer.write(question, losses, usage=asked.usage),
            ),
            reader=lambda asked: ChatReader(),
            document=lambda value, asked: chat_answers.document(value),
        ),
        "anthropic": Side(
            read=lambda body, losses, asked: messages_reader.read(body, losses),
            writer=lambda question, body, asked: MessagesWriter(asked.expected(), thinks=_thinks(body)),
            whole=lambda events, body, asked: messages_answers.write(gather(events), thinks=_thinks(body)),
            refuse=messages_answers.error_body,
            ask=lambda question, losses, asked: (
                b"/v1/messages",
                messages_writer.write(question, losses, max_tokens=asked.max_tokens),
            ),
            reader=lambda asked: MessagesReader(),
            document=lambda value, asked: messages_answers.document(value),
            failure=messages_answers.failure,
        ),
        "gemini": Side(
            read=lambda body, losses, asked: gemini_reader.read(body, losses, model=asked.model, stream=asked.stream),
            writer=lambda question, body, asked: GeminiWriter(array=asked.array),
            whole=lambda events, body, asked: gemini_answers.write(gather(events)),
            refuse=gemini_answers.error_body,
            ask=_ask_gemini,
            reader=lambda asked: GeminiReader(asked.request_id),
            document=lambda value, asked: gemini_answers.document(value, asked.request_id),
            failure=gemini_answers.failure,
        ),
        "openai_responses": Side(
            read=lambda body, losses, asked: responses_reader.read(body, losses),
            writer=lambda question, body, asked: ResponsesWriter(asked=body, created=asked.now),
            whole=lambda events, body, asked: responses_answers.whole(events, body, asked.now),
            refuse=chat_answers.error_body,
        ),
    }
)


def translates(client: str, upstream: str) -> bool:
    """Can a client of the one dialect be served by an upstream of the other?"""
    known = SIDES.get(upstream)
    return client in SIDES and known is not None and known.ask is not None


class StreamTranslator:
    """Bytes of the upstream's stream in, bytes of the client's out; pieces may be cut anywhere. Neither raises.

    `failed`: what was given to the client ends with an error. `done`: it has its proper end.
    """

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def failed(self) -> str:
        return self._writer.failed

    @property
    def done(self) -> bool:
        return self._writer.done

    def feed(self, data: bytes) -> bytes:
        return self._writer.feed(self._reader.feed(data))

    def end(self) -> bytes:
        """The upstream has ended; a client whose stream is not `done` by now must not take it for complete."""
        return self._writer.feed(self._reader.end())

    def whole(self, events: Iterable[Event]) -> bytes:
        """The upstream gave a whole answer although a stream was asked for."""
        return self._writer.feed(events)

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        """Tell the client that the stream failed."""
        return self._writer.interrupt(fault, request_id)


class Translation:
    """One request, and what can be said of its answer."""

    def __init__(self, client: str, upstream: str, body: bytes, asked: Asked) -> None:
        """Raises BadBody, Untranslatable."""
        if not translates(client, upstream):
            raise Untranslatable("no translation leads from this API to that of the upstream")
        self._client, self._upstream = SIDES[client], SIDES[upstream]
        self._body: dict[str, Any] = decode(body)
        self._asked = asked
        losses = Losses(asked.droppable)
        question = self._client.read(self._body, losses, asked)
        if asked.send_model:
            question = msgspec.structs.replace(question, model=asked.send_model)
        assert self._upstream.ask is not None
        path, said = self._upstream.ask(question, losses, asked)
        losses.check()
        self.sent = Translated(path, encode(said), question, tuple(losses.dropped))

    def stream(self) -> StreamTranslator:
        assert self._upstream.reader is not None
        writer = self._client.writer(self.sent.question, self._body, self._asked)
        return StreamTranslator(self._upstream.reader(self._asked), writer)

    def document(self, body: bytes) -> bytes:
        """A whole answer. Raises BadAnswer."""
        return written(self._client.whole(self.events(body), self._body, self._asked))

    def events(self, body: bytes) -> list[Event]:
        """Raises BadAnswer."""
        assert self._upstream.document is not None
        return self._upstream.document(object_of(body), self._asked)

    def gathered(self, body: bytes) -> bytes:
        """A stream where a whole answer was asked for. Raises BadAnswer."""
        assert self._upstream.reader is not None
        reader = self._upstream.reader(self._asked)
        events = [*reader.feed(body), *reader.end()]
        return written(self._client.whole(events, self._body, self._asked))

    def error(self, status: int, body: bytes) -> bytes:
        """The upstream's error in the client's words; its status stays."""
        return written(self._client.refuse(self._failure(status, body)))

    def _failure(self, status: int, body: bytes) -> Failed:
        try:
            value = msgspec.json.decode(body)
        except DECODE_FAULTS:
            value = None
        if type(value) is list and value:
            value = value[0]
        error = value.get("error") if type(value) is dict else None
        if type(error) is dict:
            found = self._upstream.failure(error)
        else:
            stated = error or (
                value.get("message") if type(value) is dict else None
            )  # xAI and Ollama; vLLM and Bedrock
            text = stated if type(stated) is str else body[:MAX_MESSAGE].decode("utf-8", "replace").strip()
            found = Failed(text or "the upstream reported an error without a word")
        code = found.code or (TOO_LONG if blame(status, body).kind == "context" else "")
        return msgspec.structs.replace(found, status=status, code=code)
