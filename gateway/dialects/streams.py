"""Event streams, metered in batches.

Theory of operation: a paced stream costs one cheap look per event. Whole events that begin as the ones before, or that
carry neither of the dialect's two alarm texts (an error, a terminal event), are only kept; when 64 KiB have gathered,
an alarm sounds or the body ends, they are decoded together: their data, joined by commas inside brackets, is one JSON
array for one typed decoder. Whatever does not fit that mould (comments, mixed line ends, events cut in the middle,
invalid JSON) goes the exact way through the splitter, event by event if need be. Both ways give the same facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, Protocol, TypeVar

from msgspec import Struct

from gateway.call import Answer, Asked
from gateway.dialects.meters import Draft, decode_error, is_json
from gateway.dialects.shape import DECODE_FAULTS, Shape
from gateway.dialects.sse import Event, Splitter
from gateway.ports import Meter

FLUSH = 64 * 1024  # bytes of events kept before they are decoded
_LF, _CRLF = b"\n\n", b"\r\n\r\n"
_DONE = b"[DONE]"
_NEWLINE = 10
BEGINNING = 24  # bytes by which events without a name are compared: they reach into the id

E = TypeVar("E", bound=Struct)


class Cutter(Protocol):
    """Cuts a body into events: `Splitter`, or its like for other framings."""

    overflowed: bool

    @property
    def idle(self) -> bool: ...

    @property
    def partial(self) -> bool: ...

    def feed(self, data: bytes) -> list[Event]: ...

    def pending(self, data: bytes) -> int: ...

    def forget(self) -> None: ...

    def passed(self) -> None: ...

    def end(self) -> list[Event]: ...


class EventMeter(Generic[E]):
    """Base of the stream meters. A dialect states its event type and alarms, and overrides `take` and `finished`."""

    shape: Shape[E]
    alarms: ClassVar[tuple[bytes, bytes]]
    gap = _LF  # what ends an event
    begun = False
    early: ClassVar[str] = ""  # finish reason of an answer that was stopped
    uniform: ClassVar[bool] = True  # events that begin alike are alike; the terminal event begins differently

    def __init__(self, asked: Asked, cutter: Cutter | None = None) -> None:
        self.started = False
        self.terminal = False
        self.failed = ""
        self.draft = Draft()
        self.asked = asked
        self._cutter = cutter or Splitter()
        self._held: list[bytes] = []
        self._size = 0
        self._beginning = b"\xff"  # of the last harmless event; no text begins so
        self._calm = False  # nothing is awaited, and everything kept ends with an event
        self._cut = False
        self._garbled = False  # events came that are no JSON, and none that are
        self._legible = False  # one came that is
        self.stopped = False
        self.unfinished: tuple[int, ...] = ()  # choices that had no finish reason when the stream was stopped

    def feed(self, data: bytes) -> None:
        if self._calm and (self._is_alike(data) or self._is_harmless(data)):
            self._held.append(data)
            self._size += len(data)
            if self._size < FLUSH:
                return
            data = b""
        self.drain(data)

    def _is_alike(self, data: bytes) -> bool:
        """One whole event that begins as a harmless one did before: the common case, at the price of two glances."""
        return (
            data.startswith(self._beginning)
            and data.find(b"\n", len(self._beginning)) == len(data) - 2
            and data[-1] == _NEWLINE
        )

    def _is_harmless(self, data: bytes) -> bool:
        """Whole events without alarms."""
        if not data.endswith((_LF, _CRLF)):
            return False
        error, terminal = self.alarms
        if data.find(error) >= 0 or data.find(terminal) >= 0:
            return False
        if self.uniform:
            self._beginning = data[: data.find(b"\n") + 7] if data.startswith(b"event: ") else data[:BEGINNING]
        return True

    def end(self) -> Answer:
        self.drain()
        self._cut = self._cutter.partial
        if self._cut:
            self._exactly(self._cutter.end())
        self.settle()
        return self.draft.answer(self.asked, self.finished() and not self.stopped and not self._garbled)

    def readable(self) -> bool:
        return True

    def garbled(self) -> bool:
        return self._garbled

    def produced(self, most: int) -> int:
        """While it stays below `most`, what is kept undecoded counts as if all of it were output."""
        rough = self.draft.tokens(self._size)
        if rough < most or not self._held:
            return rough
        self.drain()
        return self.draft.tokens()

    def stop(self, data: bytes) -> int:
        left = len(data) - self._cutter.pending(data)
        if left < 0:
            return -1
        self.drain()
        self._cutter.forget()
        self._calm = False
        if not self.stopped:
            finish = self.draft.finish
            self.unfinished = tuple(index for index in self.choices() if index not in finish)
            finish.update(dict.fromkeys(self.unfinished, self.early))
            self.stopped = True
        return left

    def choices(self) -> Iterable[int]:
        """The choices that the answer has."""
        return (0,)

    @property
    def broken(self) -> bool:
        """Does the body so far stop inside an event?"""
        return self._cut or self._cutter.partial

    def drain(self, data: bytes = b"") -> None:
        """Decode all that is kept, and `data`."""
        if self._held:
            self._held.append(data)
            data = b"".join(self._held)
            self._held.clear()
            self._size = 0
        if not data:
            return
        events = self._quickly(data) if self._cutter.idle else None
        if events is None:
            self._exactly(self._cutter.feed(data))
        else:
            self._cutter.passed()
            if not events:  # the terminal event alone
                self.started = True
            else:
                self._take(events)
        if self._cutter.overflowed:
            self.started = True
        self._calm = self.started and not self.failed and self._cutter.idle

    def _take(self, events: list[E]) -> None:
        self._legible, self._garbled = True, False
        if self.take(events):
            self.started = True

    def take(self, events: list[E]) -> bool:
        """Note the facts of decoded events, in order. False where they are only signs of life."""
        raise NotImplementedError

    def error_event(self, data: bytes) -> None:
        """An SSE event named `error`."""
        self.fail(*(decode_error(data) or ("error", "")))

    def fail(self, kind: str, message: str) -> None:
        self.started = True
        self.draft.error(kind, message)
        self.failed = self.draft.error_type

    def done(self) -> None:
        """The `[DONE]` that ends streams of the OpenAI family."""

    def settle(self) -> None:
        """Called once all events are noted."""

    def finished(self) -> bool:
        """Did the stream come to its proper end?"""
        return self.terminal

    def _quickly(self, blob: bytes) -> list[E] | None:
        """All events of a blob in one decode; None, with nothing noted, where they do not look alike."""
        gap = _CRLF if blob.endswith(_CRLF) else _LF
        if not blob.endswith(gap):
            return None
        if blob.startswith(b"data: "):
            data = blob[6 : -len(gap)].split(gap + b"data: ")
        elif blob.find(b"event: error") >= 0 or blob.find(b"event:error") >= 0:
            return None
        else:
            data = [block.partition(b"\ndata: ")[2] for block in blob[: -len(gap)].split(gap)]
        done = data[-1] == _DONE
        if done:
            data.pop()
        try:
            events = self.shape.many.decode(b"[" + b",".join(data) + b"]")
        except DECODE_FAULTS:
            return None
        if len(events) != len(data):
            return None
        if done:
            self.done()
        return events

    def _exactly(self, events: list[Event]) -> None:
        data: list[bytes] = []
        ended = False
        for name, text in events:
            if name == b"error":
                self.error_event(text)
            elif text == _DONE:
                ended = True
            else:
                data.append(text)
        if data:
            self._decode(data)
        if ended:
            self.started = True
            self.done()

    def _decode(self, data: list[bytes]) -> None:
        try:
            decoded = self.shape.many.decode(b"[" + b",".join(data) + b"]")
        except DECODE_FAULTS:
            decoded = []
        if len(decoded) != len(data):
            decoded = [event for event in map(self.shape.salvage, data) if event is not None]
        if decoded:
            self._take(decoded)
        elif any(map(is_json, data)):  # unknown is content all the same
            self.started, self._garbled = True, False
        elif not (self.started or self._legible):
            self._garbled = True


class Sniffer:
    """Decides between a stream and a document by the first visible byte, where the content type does not tell."""

    def __init__(self, stream: Callable[[], Meter], document: Callable[[], Meter]) -> None:
        self.begun = False
        self.started = False
        self.terminal = False
        self.failed = ""
        self._stream = stream
        self._document = document
        self._meter: Meter | None = None

    @property
    def chosen(self) -> Meter:
        if self._meter is None:
            self._meter = self._stream()
        return self._meter

    def feed(self, data: bytes) -> None:
        if self._meter is None:
            visible = data.lstrip()
            if not visible:
                return
            self._meter = self._document() if visible[0] in b'{["<' else self._stream()
        self._meter.feed(data)
        self._note()

    def end(self) -> Answer:
        answer = self.chosen.end()
        self._note()
        return answer

    def readable(self) -> bool:
        return self._meter is None or self._meter.readable()

    def garbled(self) -> bool:
        return self._meter is not None and self._meter.garbled()

    def produced(self, most: int) -> int:
        return 0 if self._meter is None else self._meter.produced(most)

    def stop(self, data: bytes) -> int:
        return -1 if self._meter is None else self._meter.stop(data)

    def _note(self) -> None:
        meter = self.chosen
        self.begun, self.started = meter.begun, meter.started
        self.terminal, self.failed = meter.terminal, meter.failed
