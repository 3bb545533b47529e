"""Tool calls one after the other, for APIs whose streams have one block open at a time.

Chat completions may mix the pieces of parallel calls. What begins while a call is under way waits until the arguments
of that call are a whole object, or until the choice has ended. A stream that does not mix its calls is not held up.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from gateway.dialects.translate.answers import MAX_HELD, Writer, broken
from gateway.dialects.translate.neutral import Called, Done, Event, Said, Stopped

_MARKS = re.compile(r'\\.?|["{}\[\]]', re.DOTALL)
_EVENT_BYTES = 100  # what an event takes beside its text


class _Block:
    """A call with its arguments, or anything else. `whole`: the brackets of the arguments are closed."""

    __slots__ = ("_depth", "_escaped", "_quoted", "events", "whole")

    def __init__(self, first: Event) -> None:
        self.events = [first]  # that wait
        self.whole = not isinstance(first, Called)
        self._depth = 0
        self._quoted = self._escaped = False

    def read(self, text: str) -> None:
        if self._escaped:
            text = text[1:]
        self._escaped = False
        for mark in _MARKS.findall(text):
            if mark[0] == "\\":
                self._escaped = len(mark) == 1
            elif mark == '"':
                self._quoted = not self._quoted
            elif not self._quoted:
                self._depth += 1 if mark in "{[" else -1
                self.whole = self.whole or self._depth == 0


class _Choice:
    def __init__(self) -> None:
        self._open: _Block | None = None
        self._waiting: list[_Block] = []
        self._calls: dict[int, _Block] = {}
        self.held = 0  # bytes that wait

    def take(self, event: Said | Called) -> Iterator[Event]:
        """What may be said now."""
        if isinstance(event, Said) and event.kind == "arguments":
            yield from self._piece(event)
        elif isinstance(event, Said) and not self._waiting and (self._open is None or self._open.whole):
            yield event
        else:
            block = _Block(event)
            if isinstance(event, Called):
                self._calls[event.key] = block
            self._waiting.append(block)
            self._hold(event)
            yield from self.release()

    def _piece(self, event: Said) -> Iterator[Event]:
        block = self._calls.get(event.key)
        if block is None or (block.whole and not event.text.strip()):
            return
        block.read(event.text)
        if block.events:
            block.events.append(event)
            self._hold(event)
            return
        yield event
        yield from self.release()

    def _hold(self, event: Said | Called) -> None:
        self.held += _EVENT_BYTES + (len(event.text) if isinstance(event, Said) else 0)

    def release(self, *, ended: bool = False) -> Iterator[Event]:
        """The blocks whose turn has come; all of them once the choice has `ended`."""
        count = 0
        for block in self._waiting:
            if self._open is not None and not self._open.whole and not ended:
                break
            count += 1
            self._open = block
            yield from block.events
            block.events = []
        del self._waiting[:count]
        if not self._waiting:
            self.held = 0


class SerialWriter(Writer):
    """Base of the writers whose streams have one block open at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._choices: dict[int, _Choice] = {}

    def feed(self, events: Iterable[Event]) -> bytes:
        return super().feed(self._in_turn(events))

    def _in_turn(self, events: Iterable[Event]) -> Iterator[Event]:
        for event in events:
            if isinstance(event, Said | Called):
                choice = self._choices.setdefault(event.choice, _Choice())
                yield from choice.take(event)
                if choice.held > MAX_HELD:
                    yield broken("the pieces of several tool calls are mixed, and too long to be put in order")
                continue
            ended = isinstance(event, Done)
            for index, choice in self._choices.items():
                if ended or (isinstance(event, Stopped) and event.choice == index):
                    yield from choice.release(ended=True)
            yield event
