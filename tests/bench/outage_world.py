"""An upstream that has an outage, and what became of a call that went through it. Nothing here is measured.

Every answer holds a text that depends on who gave it and on the number of the call. So a call is judged by its text
alone, whatever a gateway did to get it: it is whole, or its client was told that it is not, or (what must never be) it
ended as a clean success without being whole.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.testing.faults import Close, Repeat, Reset, Script, Send, Wait, answer, chunked
from gateway.testing.scripted import ScriptedUpstream

OK = "ok"
FIRST, WELL = "first", "well"
FOREVER = 3600.0
PIECES = 12  # of a streamed answer; it breaks off behind half of them
PING_SECONDS = 0.25
_NUMBER = re.compile(rb"number (\d+)")
_STREAM = re.compile(rb'"stream" ?: ?true')
_USAGE = re.compile(rb'"include_usage" ?: ?true')
_BUSY = b'{"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}'
_LIMIT = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'
_PAGE = b"<!doctype html><html><body><h1>It works!</h1></body></html>"


@dataclass(frozen=True)
class Scenario:
    """`faults`: what happens to one request after the other, over and over; none: nobody listens."""

    name: str
    title: str
    faults: tuple[str, ...]


SCENARIOS = (
    Scenario("refuse", "refuses connections", ()),
    Scenario("stall", "stalls before the head", ("stall",)),
    Scenario("silent", "a 200, then silence or pings", ("silent", "pings")),
    Scenario(
        "errors",
        "30 % errors: 503, 429, reset",
        ("503", OK, OK, "429", OK, OK, OK, "reset", OK, OK),
    ),
    Scenario("cut", "cuts every answer in its middle", ("cut_reset", "cut_closed", "cut_ended")),
    Scenario("garbage", "a 200 with garbage", ("half", "page", "noise")),
)


# -- what is asked and answered


def prompt(number: int) -> str:
    return f"This is number {number}. Say who you are."


def pieces(who: str, number: int) -> list[str]:
    """The text of an answer, as a stream brings it."""
    return [*(f"part {part} of many words, " for part in range(PIECES - 1)), f"said {who} to {number}."]


def text_of(who: str, number: int) -> str:
    return "".join(pieces(who, number))


def document(who: str, number: int) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text_of(who, number)}, "finish_reason": "stop"}
    return _dumped({**_named("chat.completion", number), "choices": [choice], "usage": _used()})


def events(who: str, number: int, *, usage: bool) -> list[bytes]:
    """All events of a stream, the terminal one last."""

    def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        return _sse({**_named("chat.completion.chunk", number), "choices": [choice]})

    found = [event({"role": "assistant", "content": ""})]
    found += [event({"content": piece}) for piece in pieces(who, number)]
    found.append(event({}, "stop"))
    if usage:
        found.append(_sse({**_named("chat.completion.chunk", number), "choices": [], "usage": _used()}))
    return [*found, b"data: [DONE]\n\n"]


def _named(kind: str, number: int) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number}", "object": kind, "created": 1_700_000_000, "model": "gpt-4o-mini"}


def _used() -> dict[str, int]:
    return {"prompt_tokens": 12, "completion_tokens": 70, "total_tokens": 82}


def _dumped(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _sse(value: Any) -> bytes:
    return b"data: " + _dumped(value) + b"\n\n"


# -- what the upstream does


def script(fault: str, who: str, raw: bytes) -> Script:
    """What follows a request. Raises KeyError for a fault that nobody knows."""
    number, stream = number_in(raw), bool(_STREAM.search(raw))
    if fault in _BEFORE:
        return _BEFORE[fault]
    if stream:
        all_events = events(who, number, usage=bool(_USAGE.search(raw)))
        return _streamed(all_events)[fault]
    return _whole(document(who, number))[fault]


_BEFORE: dict[str, Script] = {
    "503": [Send(answer(_BUSY, status=b"503 Service Unavailable"))],
    "429": [Send(answer(_LIMIT, b"retry-after: 1", status=b"429 Too Many Requests"))],
    "reset": [Reset()],
    "stall": [Wait(FOREVER)],
}


def _whole(body: bytes) -> dict[str, Script]:
    half, size = body[: len(body) // 2], len(body)
    silent: Script = [Send(answer(b"", length=size)), Wait(FOREVER)]
    ended = chunked(half, content_type=b"application/json")
    return {
        OK: [Send(answer(body))],
        "silent": silent,
        "pings": silent,  # JSON has none
        "cut_reset": [Send(answer(half, length=size)), Reset()],
        "cut_closed": [Send(answer(half, length=size)), Close()],
        "cut_ended": [Send(ended)],  # its framing is whole, its JSON is not
        "half": [Send(answer(half))],
        "page": [Send(answer(_PAGE))],
        "noise": [Send(answer(bytes(range(1, 256))))],
    }


def _streamed(all_events: list[bytes]) -> dict[str, Script]:
    ping = b": ping\n\n"
    begun = all_events[: 1 + PIECES // 2]
    broken = [event[: len(event) // 2] + b"\n\n" for event in all_events[:-1]]
    return {
        OK: [Send(chunked(*all_events))],
        "silent": [Send(chunked(end=b"")), Wait(FOREVER)],
        "pings": [Send(chunked(end=b"")), Repeat(b"%x\r\n%b\r\n" % (len(ping), ping), pause=PING_SECONDS)],
        "cut_reset": [Send(chunked(*begun, end=b"")), Wait(0.02), Reset()],
        "cut_closed": [Send(chunked(*begun, end=b"")), Wait(0.02), Close()],
        "cut_ended": [Send(chunked(*begun)), Close()],  # its framing is whole, its terminal event is missing
        "half": [Send(chunked(*broken, all_events[-1]))],
        "page": [Send(chunked(_PAGE))],
        "noise": [Send(chunked(bytes(range(1, 256))))],
    }


def number_in(raw: bytes) -> int:
    """Of the call that a request is of; -1: of none (a gateway's own)."""
    match = _NUMBER.search(raw)
    return int(match[1]) if match else -1


class Provider(ScriptedUpstream):
    """Answers at once, until it is told to have an outage. `asked`: the numbers of the calls that reached it."""

    def __init__(self, who: str) -> None:
        super().__init__({"": self._next})
        self.who = who
        self.asked: list[int] = []
        self._faults: Iterator[str] = itertools.repeat(OK)

    def _next(self, raw: bytes) -> Script:
        self.asked.append(number_in(raw))
        return script(next(self._faults), self.who, raw)

    async def fail(self, scenario: Scenario) -> None:
        if scenario.faults:
            self._faults = itertools.cycle(scenario.faults)
            return
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):  # kept connections end with it
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def heal(self) -> None:
        self._faults = itertools.repeat(OK)
        if self._server is None or not self._server.is_serving():
            self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=2**20)


# -- what became of a call


class Verdict(enum.Enum):
    WHOLE = "whole"
    TOLD = "told"  # an error, an answer that visibly broke off, or none: the client knows
    FALSE = "false"  # a clean success that is none


@dataclass
class Got:
    """What a client has of an answer. `ended`: its framing came to its end; status 0: no head came."""

    number: int
    stream: bool
    status: int = 0
    ended: bool = False
    body: bytes = b""
    began: float = 0.0  # seconds of the loop's clock
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        if self.status != 200 or not self.ended:
            return Verdict.TOLD
        heard = hear_stream(self.body) if self.stream else hear(self.body)
        if heard.told:
            return Verdict.TOLD
        return Verdict.WHOLE if heard.finished and self._from(heard.text) else Verdict.FALSE

    @property
    def by(self) -> str:
        """Who gave the whole answer, or ""."""
        if self.verdict is not Verdict.WHOLE:
            return ""
        return self._from((hear_stream(self.body) if self.stream else hear(self.body)).text)

    def _from(self, text: str) -> str:
        return next((who for who in (FIRST, WELL) if text == text_of(who, self.number)), "")


@dataclass
class Heard:
    text: str = ""
    finished: bool = False
    told: bool = False  # it says that it failed


def hear(body: bytes) -> Heard:
    """A whole answer, as a client reads it."""
    try:
        found = json.loads(body)
        choice = found["choices"][0]
        return Heard(choice["message"]["content"] or "", choice["finish_reason"] == "stop")
    except (ValueError, KeyError, TypeError, IndexError):
        return Heard()


def hear_stream(body: bytes) -> Heard:
    """A stream, as a client reads it; what is no event is passed over."""
    heard = Heard()
    for line in body.splitlines():
        if line.startswith(b"event: error"):
            heard.told = True
        if not line.startswith(b"data:"):
            continue
        if line[5:].strip() == b"[DONE]":
            heard.finished = True
            continue
        try:
            found = json.loads(line[5:])
            heard.told = heard.told or "error" in found
            for choice in found.get("choices") or ():
                heard.text += choice["delta"].get("content") or ""
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return heard
