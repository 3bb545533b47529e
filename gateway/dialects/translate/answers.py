"""What the readers and writers of answers share: events out of bytes, and the ways in which an answer is no answer.

Rules
1. A reader gives a `Done` for the proper end of a stream only: a terminal event, or, where the API has none, the end of
   the body once every choice has said why it stopped. A stream that was cut gives none.
2. What cannot be read, or has no place in the neutral form, is `Failed`: never a part that is missing from a success.
3. After `Failed` or `Done` nothing follows, whatever the upstream still sends.
4. A reader keeps one event at a time (see dialects.sse), and names of calls; a writer what its API says only in whole,
   up to `MAX_HELD`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from gateway.call import Usage
from gateway.dialects.shape import DECODE_FAULTS
from gateway.dialects.sse import Splitter
from gateway.dialects.translate.common import object_text
from gateway.dialects.translate.halves import Halves, decode, decode_halves
from gateway.dialects.translate.neutral import (
    STOP,
    TOOLS,
    Began,
    Called,
    Choice,
    Counted,
    Done,
    Event,
    Failed,
    Invocation,
    Part,
    Reply,
    Said,
    Stopped,
    Text,
    Thought,
)
from gateway.errors import BadAnswer, GatewayError

MAX_HELD = 8 * 1024 * 1024
MAX_CALLS = 1024  # tool calls, choices or blocks of one answer
BAD = 502
_encode = msgspec.json.Encoder().encode


def broken(message: str) -> Failed:
    return Failed(message, "api_error", BAD)


def text_of(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    return value if type(value) is str else ""


def dict_of(fields: dict[str, Any], name: str) -> dict[str, Any]:
    value = fields.get(name)
    return value if type(value) is dict else {}


def dicts_of(fields: dict[str, Any], name: str) -> list[dict[str, Any]]:
    value = fields.get(name)
    return [item for item in value if type(item) is dict] if type(value) is list else []


def int_of(fields: dict[str, Any], name: str) -> int:
    value = fields.get(name)
    return value if type(value) is int and 0 <= value < MAX_CALLS else 0


def written(value: Any) -> bytes:
    """JSON of an answer. Raises BadAnswer for what has no place in JSON."""
    try:
        return _encode(value)
    except (OverflowError, ValueError, TypeError, RecursionError):
        raise BadAnswer("the answer holds a value that cannot be written again") from None


def object_of(body: bytes) -> dict[str, Any]:
    """A whole answer. Raises BadAnswer."""
    value = decode(body)
    if type(value) is list and len(value) == 1:
        value = value[0]
    if type(value) is not dict:
        raise BadAnswer("the answer is no JSON object")
    return value


def sse(value: dict[str, Any], name: str = "") -> bytes:
    data = written(value)
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data


def arguments_of(text: str) -> msgspec.Raw:
    """Arguments as an object. Raises BadAnswer where the model wrote something else."""
    found = object_text(text)
    if found is None:
        raise BadAnswer("the model called a tool with arguments that are no JSON object")
    return found


def refuse(event: Failed) -> BadAnswer:
    return BadAnswer(event.message)


class Reader:
    """Base of the stream readers. Sub-classes say what an event means (`take`) and what usage was stated."""

    def __init__(self) -> None:
        self._splitter = Splitter()
        self.over = False
        self._began = False
        self._stopped: dict[int, Stopped] = {}
        self._seen: set[int] = set()
        self._calling: set[int] = set()  # choices that called a tool
        self._halves: Halves | None = None  # None: no event had half of a surrogate pair

    def feed(self, data: bytes) -> list[Event]:
        """Never raises."""
        found: list[Event] = []
        if not self.over:
            self._read(self._splitter.feed(data), found)
            if self._splitter.overflowed and not self.over:
                found.append(broken("an event of the answer is too large"))
                self.over = True
        return found

    def end(self) -> list[Event]:
        """The body has ended, or was cut."""
        found: list[Event] = []
        if not self.over:
            self._read(self._splitter.end(), found)
        if not self.over and self.finished():
            self._add(found, self.closing())
        return found

    def _read(self, events: Iterable[tuple[bytes, bytes]], found: list[Event]) -> None:
        for name, data in events:
            if self.over:
                return
            if data.strip() == b"[DONE]":
                self._add(found, self.closing())
                continue
            try:
                value = msgspec.json.decode(data)
            except DECODE_FAULTS:
                value = decode_halves(data)
                self._halves = self._halves or Halves()
            if type(value) is dict:
                self._take(name, value, found)
            elif value is not None or data.strip():
                self._add(found, [broken("an event of the answer is no JSON object")])

    def _take(self, name: bytes, value: dict[str, Any], found: list[Event]) -> None:
        try:
            self._add(found, self.take(name, value))
        except BadAnswer as fault:
            self._add(found, [broken(fault.message)])

    def document(self, events: Iterable[Event]) -> list[Event]:
        """The events of an answer that is no stream."""
        found: list[Event] = []
        self._add(found, events)
        return found

    def _add(self, found: list[Event], events: Iterable[Event]) -> None:
        for event in events:
            if self.over:
                return
            if isinstance(event, Called):
                self._calling.add(event.choice)
            if isinstance(event, Said) and self._halves is not None:
                found.append(self._halves.mend(event))
            else:
                found.append(event)
            self.over = isinstance(event, Failed | Done)

    def begin(self, id: str, model: str) -> Iterator[Event]:
        if not self._began:
            self._began = True
            yield Began(id, model)

    def stop(self, choice: int, reason: str, sequence: str = "") -> None:
        """Why a choice ended; said at the end, when it is known which tools were called."""
        self._stopped.setdefault(choice, Stopped(choice, reason, sequence))

    def closing(self) -> Iterator[Event]:
        yield from self.begin("", "")
        if not self._seen and not self._stopped:
            yield broken("the answer is empty")
        for choice in sorted(self._seen | self._stopped.keys()):
            known = self._stopped.get(choice) or Stopped(choice, STOP)
            tools = known.reason == STOP and choice in self._calling
            yield Stopped(choice, TOOLS, known.sequence) if tools else known
        usage = self.usage()
        if usage is not None:
            yield Counted(usage)
        yield Done()

    def finished(self) -> bool:
        """Does the end of the body complete the stream?"""
        return bool(self._stopped) and self._stopped.keys() >= self._seen

    def usage(self) -> Usage | None:
        raise NotImplementedError

    def take(self, name: bytes, value: dict[str, Any]) -> Iterable[Event]:
        raise NotImplementedError


class _Piecemeal:
    """A part while it is put together. `kind`: as of `Said`, or call."""

    __slots__ = ("called", "kind", "origin", "pieces", "signature")

    def __init__(self, kind: str, called: Called | None = None) -> None:
        self.kind, self.called = kind, called
        self.pieces: list[str] = []
        self.signature = self.origin = ""

    def part(self) -> Part:
        text = "".join(self.pieces)
        if self.called is not None:
            return Invocation(self.called.name, text or "{}", self.called.id, self.called.signature)
        if self.kind == "sealed":
            return Thought(data=text, origin=self.origin)
        if self.kind == "thought":
            return Thought(text, self.signature, origin=self.origin)
        return Text(text, signature=self.signature, refusal=self.kind == "refusal")


class _Gathered:
    """A choice while its pieces are put together."""

    def __init__(self) -> None:
        self.parts: list[_Piecemeal] = []
        self.calls: dict[int, _Piecemeal] = {}
        self.stopped: Stopped | None = None

    def say(self, event: Said) -> None:
        last = self.parts[-1] if self.parts else None
        if event.kind == "arguments":
            last = self.calls.get(event.key)
        elif event.kind == "mark":
            if last is None or last.kind != "text" or last.signature:
                last = self._add("text")
            last.signature = event.text
            return
        elif event.kind == "signature":
            if last is None or last.kind != "thought" or last.signature:
                last = self._add("thought")
            last.signature, last.origin = event.text, event.origin
            return
        elif last is None or last.kind != event.kind or last.signature or event.kind == "sealed":
            last = self._add(event.kind)
            last.origin = event.origin
        if last is not None:
            last.pieces.append(event.text)

    def _add(self, kind: str, called: Called | None = None) -> _Piecemeal:
        self.parts.append(_Piecemeal(kind, called))
        return self.parts[-1]

    def call(self, event: Called) -> None:
        self.calls[event.key] = self._add("call", event)

    def choice(self, index: int) -> Choice:
        stopped = self.stopped or Stopped(index, STOP)
        return Choice(index, tuple([part.part() for part in self.parts]), stopped.reason, stopped.sequence)


def gather(events: Iterable[Event]) -> Reply:
    """The events of a stream as a whole answer. Raises BadAnswer where they hold a failure or no end."""
    id = model = ""
    usage: Usage | None = None
    choices: dict[int, _Gathered] = {}
    done = False
    for event in events:
        if isinstance(event, Failed):
            raise BadAnswer(event.message)
        if isinstance(event, Began):
            id, model = event.id, event.model
        elif isinstance(event, Counted):
            usage = event.usage
        elif isinstance(event, Done):
            done = True
        else:
            _gather(choices.setdefault(event.choice, _Gathered()), event)
    if not done:
        raise BadAnswer("the answer has no end")
    return Reply(id, model, tuple([choices[index].choice(index) for index in sorted(choices)]), usage)


def _gather(choice: _Gathered, event: Said | Called | Stopped) -> None:
    if isinstance(event, Said):
        choice.say(event)
    elif isinstance(event, Called):
        choice.call(event)
    else:
        choice.stopped = event


class Writer:
    """Base of the stream writers: events in, bytes out. `failed`: what was written ends with an error."""

    def __init__(self) -> None:
        self.id = self.model = ""
        self.failed = ""
        self.done = False
        self.usage: Usage | None = None

    def feed(self, events: Iterable[Event]) -> bytes:
        """Never raises."""
        out: list[bytes] = []
        for event in events:
            if self.done or self.failed:
                break
            try:
                out.append(self._event(event))
            except BadAnswer as fault:
                out.append(self._event(broken(fault.message)))
        return b"".join(out)

    def _event(self, event: Event) -> bytes:
        if isinstance(event, Failed):
            self.failed = event.kind or "error"
            return self.fail(event)
        if isinstance(event, Counted):
            self.usage = event.usage
            return b""
        if isinstance(event, Began):
            self.id, self.model = event.id, event.model
            return self.begin()
        if isinstance(event, Said):
            return self.say(event)
        if isinstance(event, Called):
            return self.call(event)
        if isinstance(event, Stopped):
            return self.stop(event)
        self.done = True
        return self.finish()

    def begin(self) -> bytes:
        return b""

    def say(self, event: Said) -> bytes:
        raise NotImplementedError

    def call(self, event: Called) -> bytes:
        raise NotImplementedError

    def stop(self, event: Stopped) -> bytes:
        raise NotImplementedError

    def finish(self) -> bytes:
        raise NotImplementedError

    def fail(self, event: Failed) -> bytes:
        raise NotImplementedError

    def interrupt(self, fault: GatewayError, request_id: str) -> bytes:
        """The event that tells a client that the gateway could not go on; what follows it is cut off."""
        raise NotImplementedError
