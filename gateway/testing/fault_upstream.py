"""A provider that fails as it is told: the fake of the three providers, with a catalogue of faults before it.

    async with FaultyProvider(scenario("20 ok, 30 503, ok")) as up: ...      # up.url, up.played
    python -m gateway.testing.fault_upstream --port 9000 --scenario outage.txt

What happens to a request says its header `x-fault`; without one the scenario: so many requests each, in the order in
which they come, the last for ever. `ok` is answered by `gateway.testing.fake_upstream`, which has faults within an
answer of its own (`x-fake: [[fault cut after=5]]`). All names: `--list`. For tests of gateways, and of agents.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.faults import (
    ANSWERS,
    Close,
    FaultUpstream,
    Receive,
    Repeat,
    Reset,
    Script,
    Send,
    Wait,
    _request,
    chunked,
)
from gateway.testing.faults import answer as answered

OK = "ok"
FOREVER = 3600.0
_NAME = re.compile(rb"\r\nx-fault: *([^\r]*)", re.I)
_PHASE = re.compile(r"(?:(\d+)\s+)?([^\s,#]+)\Z")
_BUSY = b'{"error":{"message":"busy","type":"server_error","code":"server_is_overloaded"}}'
_LIMIT = b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}'
_CLAUDE = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
_PING = b": ping\n\n"


def _said(status: bytes, body: bytes = _BUSY, *headers: bytes) -> Script:
    return [Receive(), Send(answered(body, *headers, status=status)), Close()]


def _limited(*headers: bytes) -> Script:
    return _said(b"429 Too Many Requests", _LIMIT, *headers)


FAULTS: dict[str, Script] = {
    **ANSWERS,
    "408": _said(b"408 Request Timeout"),
    "409": _said(b"409 Conflict"),
    "500": _said(b"500 Internal Server Error"),
    "502": _said(b"502 Bad Gateway", b"<html>"),
    "503": _said(b"503 Service Unavailable"),
    "504": _said(b"504 Gateway Timeout"),
    "529": _said(b"529 Overloaded", _CLAUDE),
    "no_retry": _said(b"500 Internal Server Error", _BUSY, b"x-should-retry: false"),
    "429": _limited(),
    "429_seconds": _limited(b"retry-after: 2"),
    "429_ms": _limited(b"retry-after-ms: 1500"),
    "429_date": _limited(b"retry-after: Fri, 31 Dec 2100 23:59:59 GMT"),
    "429_requests": _limited(b"x-ratelimit-remaining-requests: 0", b"x-ratelimit-reset-requests: 1s"),
    "429_tokens": _limited(b"x-ratelimit-remaining-tokens: 0", b"x-ratelimit-reset-tokens: 6m0s"),
    "429_anthropic": _limited(
        b"anthropic-ratelimit-tokens-remaining: 0", b"anthropic-ratelimit-tokens-reset: 2100-01-01T00:00:00Z"
    ),
    "stall_at_accept": [Wait(FOREVER)],
    "stall_before_head": [Receive(), Wait(FOREVER)],
    "stall_before_content": [Receive(), Send(chunked(_PING, end=b"")), Wait(FOREVER)],
    "pings_without_content": [Receive(), Send(chunked(end=b"")), Repeat(b"8\r\n" + _PING + b"\r\n", pause=0.5)],
    "slow_drip": [Receive(), Send(chunked(b"data: {}\n\n" * 50), piece=1, pause=0.2), Close()],
    "error_in_200": [Receive(), Send(chunked(b"data: " + _BUSY + b"\n\n")), Close()],
    "refuse": [Reset()],
}
"""By name; those of `gateway.testing.faults` among them."""


def scenario(text: str) -> list[tuple[int, str]]:
    """`20 ok, 30 503, ok`: phases divided by commas or lines, behind # a remark. Raises ValueError."""
    lines = [line.partition("#")[0] for line in text.splitlines()]
    parts = [part.strip() for part in ",".join(lines).split(",") if part.strip()]
    found: list[tuple[int, str]] = []
    for at, part in enumerate(parts):
        match = _PHASE.match(part)
        if match is None or (match[2] != OK and match[2] not in FAULTS):
            raise ValueError(f"no such fault: {part}")
        if match[1] is None and at < len(parts) - 1:
            raise ValueError(f"{part}: how many requests? Only the last phase may go on for ever")
        found.append((int(match[1] or 0), match[2]))
    return found or [(0, OK)]


def played(phases: Sequence[tuple[int, str]]) -> Iterator[str]:
    """What happens to one request after the other; the last phase goes on."""
    for count, name in phases:
        for _ in range(count):
            yield name
    while True:
        yield phases[-1][1]


class FaultyProvider(FaultUpstream):
    """`played`: what happened to each request, in the order in which they came."""

    def __init__(self, phases: Sequence[tuple[int, str]] = ((0, OK),), *, seed: int = 0, port: int = 0) -> None:
        super().__init__([], port=port)
        self.played: list[str] = []
        self._next = played(phases)
        self._fake = FakeUpstream(seed)

    async def __aenter__(self) -> Self:
        await self._fake.start()
        return await super().__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, fault, trace)
        await self._fake.stop()

    def plays(self, phases: Sequence[tuple[int, str]]) -> None:
        """From the next request on."""
        self._next = played(phases)

    async def _play(self, script: Script, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        raw = await _request(reader, body=True)
        match = _NAME.search(raw.partition(b"\r\n\r\n")[0])
        name = match[1].decode("latin-1").strip() if match else next(self._next)
        self.received.append(raw)
        self.played.append(name)
        if name not in FAULTS:
            await self._relay(raw, writer)
            return False
        acts = [act for act in FAULTS[name] if not isinstance(act, Receive)]
        return await super()._play(acts, reader, writer)

    async def _relay(self, raw: bytes, writer: asyncio.StreamWriter) -> None:
        """The fake answers, on a connection of its own that ends with its answer."""
        fake_reader, fake_writer = await asyncio.open_connection(self._fake.host, self._fake.port)
        try:
            fake_writer.write(raw.replace(b"\r\n", b"\r\nconnection: close\r\n", 1))
            while data := await fake_reader.read(65_536):
                writer.write(data)
                await writer.drain()
        finally:
            fake_writer.close()
            await fake_writer.wait_closed()


async def _serve(provider: FaultyProvider) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, done.set)
    async with provider:
        print(f"faulty provider listening on {provider.url}", flush=True)
        await done.wait()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway.testing.fault_upstream", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenario", metavar="FILE", help='a file as "20 ok", "30 503", "ok", one phase in each line')
    parser.add_argument("--list", action="store_true", help="show the names of all faults")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join((OK, *sorted(FAULTS))))
        return 0
    phases = scenario(Path(options.scenario).read_text()) if options.scenario else [(0, OK)]
    asyncio.run(_serve(FaultyProvider(phases, seed=options.seed, port=options.port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
