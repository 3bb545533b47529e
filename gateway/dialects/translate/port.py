"""Implements ports.Translator: a call whose upstream speaks another API than its client.

The meter reads the upstream's bytes in the upstream's dialect: what is paid for is what it states. The client sees its
own dialect only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType

from gateway.call import Answer, Call, Request, Route, Usage
from gateway.dialects.base import path_model
from gateway.dialects.gemini import wants_sse
from gateway.dialects.registry import DIALECTS
from gateway.dialects.translate.hub import Asked, StreamTranslator, Translation, translates
from gateway.dialects.translate.neutral import LENGTH, Counted, Done, Stopped
from gateway.errors import BadAnswer, GatewayError
from gateway.ports import Headers, Meter

EVENTS, JSON = b"text/event-stream", b"application/json"
MAX_WHOLE = 32 * 1024 * 1024  # bytes of an answer that is translated in one piece
# What a family of upstreams is asked in.
SPOKEN: Mapping[str, str] = MappingProxyType({"openai": "openai_chat", "anthropic": "anthropic", "gemini": "gemini"})
FAMILIES: Mapping[str, str] = MappingProxyType(
    {"openai_chat": "openai", "openai_responses": "openai", "anthropic": "anthropic", "gemini": "gemini"}
)
# Requests that ask for an answer; what else an API has (counts, fetches, compaction) has no translation.
TEMPLATES = frozenset(
    (
        *("/v1/chat/completions", "/v1/responses", "/v1/messages"),
        *("/v1beta/models/{model}:generateContent", "/v1beta/models/{model}:streamGenerateContent"),
    )
)
WANTED: Mapping[str, Headers] = MappingProxyType({"anthropic": ((b"anthropic-version", b"2023-06-01"),)})
CHAT = "chat"
TOO_LARGE, UNSAID = "answer_too_large", "answer_untranslatable"


class SeenMeter:
    """The meter of the upstream's dialect, for who passes on the client's bytes: it has read them already."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._piece = b""  # the last of the upstream's
        self.begun = self.started = self.terminal = False
        self.failed = ""

    def see(self, data: bytes) -> None:
        self._piece = data
        self._meter.feed(data)
        meter = self._meter
        self.begun, self.started, self.terminal = meter.begun, meter.started, meter.terminal and not self.failed
        self.failed = self.failed or meter.failed

    def fail(self, why: str) -> None:
        """The translation failed, where the upstream did not."""
        self.failed = self.failed or why
        self.terminal = False

    def told(self) -> None:
        """The client's stream has its end, although the upstream's may have had no event for it."""
        self.terminal = not self.failed

    def feed(self, data: bytes) -> None:
        pass

    def readable(self) -> bool:
        return True  # what could not be read was not translated either

    def garbled(self) -> bool:
        return False  # see `readable`

    def produced(self, most: int) -> int:
        return self._meter.produced(most)

    def stop(self, data: bytes) -> int:
        """The client has whole events only, so it may have all of its piece."""
        return -1 if self._meter.stop(self._piece) < 0 else len(data)

    def end(self) -> Answer:
        return self._meter.end()


class OtherAnswer:
    """Implements ports.OtherAnswer. A stream comes out as it comes in; anything else in one piece, at its end."""

    def __init__(
        self, said: Translation, meter: Meter, status: int, kind: bytes, *, streams: bool, array: bool
    ) -> None:
        self._said = said
        self._seen = SeenMeter(meter)
        self._status = status
        self._events = kind.startswith(EVENTS)
        self._body = bytearray()
        self._stream: StreamTranslator | None = said.stream() if streams and status < 400 else None
        self._ended = False
        self.meter: Meter = self._seen
        self.content_type = EVENTS if self._stream is not None and not array else JSON
        self.streams = self._stream is not None

    def feed(self, data: bytes) -> bytes:
        self._seen.see(data)
        if self._stream is None or not self._events:
            self._body += data
            if len(self._body) > MAX_WHOLE:
                self._seen.fail(TOO_LARGE)
                self._body.clear()
            return b""
        return self._noted(self._stream.feed(data))

    def end(self) -> bytes:
        """Raises BadAnswer."""
        if self._ended:
            return b""
        self._ended = True
        if self._seen.failed == TOO_LARGE:
            raise BadAnswer("the answer is too large to be translated")
        body = bytes(self._body)
        if self._stream is None:
            return self._whole(body)
        if self._events:
            return self._noted(self._stream.end())
        return self._noted(self._stream.whole(self._said.events(body)))

    def _whole(self, body: bytes) -> bytes:
        if self._status >= 400:
            return self._said.error(self._status, body)
        if not 200 <= self._status < 300:
            return b""
        return self._said.gathered(body) if self._events else self._said.document(body)

    def _noted(self, said: bytes) -> bytes:
        if self._stream is not None and self._stream.failed:
            self._seen.fail(UNSAID)
        elif self._stream is not None and self._stream.done:
            self._seen.told()
        return said

    def finish_early(self, usage: Usage) -> bytes:
        if self._stream is None:
            return b""
        return self._stream.whole((Stopped(0, LENGTH), Counted(usage), Done()))

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        return self._stream.interrupt(fault, request_id) if self._stream is not None else b""


class Question:
    """Implements ports.OtherQuestion."""

    def __init__(self, dialect: str, said: Translation, call: Call, upstream: str, *, array: bool) -> None:
        self.dialect = dialect
        self.path, self.body, self.dropped = said.sent.path, said.sent.body, said.sent.dropped
        self.headers: Headers = WANTED.get(dialect, ())
        self._said = said
        self._array = array
        self._streams = said.sent.question.stream
        self._route = Route(call.route.template, dialect, CHAT, upstream, self.path)

    def answer(self, status: int, content_type: bytes) -> OtherAnswer:
        dialect = DIALECTS[self.dialect]
        asked = dialect.read(self._route, Request(b"POST", self.path, (), self.body))
        # The wish for usage is ours, not the client's: a stream is whole without it.
        asked.fields = {name: value for name, value in asked.fields.items() if name != "stream_options"}
        meter = dialect.meter(self._route, asked, status, content_type)
        return OtherAnswer(self._said, meter, status, content_type, streams=self._streams, array=self._array)


class Translator:
    """Implements ports.Translator. `expected` estimates the input tokens of a call."""

    def __init__(self, expected: Callable[[Call], int] = lambda call: 0) -> None:
        self._expected = expected

    def dialect(self, call: Call, family: str) -> str:
        """The dialect in which an upstream of this family is asked; "" where it is the client's own, or none is known.

        An upstream of the client's own API gets the client's own bytes.
        """
        route, spoken = call.route, SPOKEN.get(family, "")
        known = FAMILIES.get(route.dialect)
        if known is None or known == family or route.template not in TEMPLATES or call.websocket:
            return ""
        if call.request.method != b"POST" or not translates(route.dialect, spoken):
            return ""
        return spoken

    def serves(self, call: Call, family: str) -> bool:
        return FAMILIES.get(call.route.dialect) == family or bool(self.dialect(call, family))

    def ask(
        self,
        call: Call,
        upstream: tuple[str, str],
        body: bytes,
        *,
        droppable: Sequence[str] = (),
        usage: bool = True,
        max_tokens: int = 0,
    ) -> Question:
        """Raises BadBody, Untranslatable."""
        name, family = upstream
        route, dialect = call.route, self.dialect(call, family)
        array = route.dialect == "gemini" and call.asked.stream and not wants_sse(route)
        asked = Asked(
            model=path_model(route)[0],
            stream=call.asked.stream,
            array=array,
            droppable=tuple(droppable),
            usage=usage,
            max_tokens=max_tokens,
            expected=partial(self._expected, call),
            request_id=call.id,
            now=call.started_at // 1_000_000_000,
        )
        return Question(dialect, Translation(route.dialect, dialect, body, asked), call, name, array=array)
