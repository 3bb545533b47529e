"""Recorded exchanges with providers, replayed through a real gateway: bytes in are bytes out, and the record is right.

The recordings stand in tests/golden/cassettes; TOLLGATE_CASSETTES may name a larger collection.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yarl

from gateway.call import Answer, Request, UsageSource
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.ports import Meter
from gateway.testing.cassettes import FAMILIES, CassetteUpstream, Exchange, load_all
from gateway.testing.gateway import RunningGateway

ROOT = Path(os.environ.get("TOLLGATE_CASSETTES") or Path(__file__).parents[1] / "golden" / "cassettes")
TABLE = Table({name: name for name in FAMILIES})
NOT_SENT = {"host", "accept-encoding", "expect", "proxy-authorization", "cookie", "upgrade", "via", "te"}
HOP = {"connection", "keep-alive", "transfer-encoding", "date", "content-length"}


def target(exchange: Exchange) -> str:
    """The recorded target; what the gateway refuses on purpose (encoded slashes, non-ASCII) is written otherwise."""
    plain = re.sub(r"%2[fF]|%5[cC]|%2[eE]", "~", exchange.target.encode("ascii", "replace").decode())
    return "/" + re.sub(r"/{2,}", "/", plain).lstrip("/").replace(" ", "+")


@pytest.fixture(scope="module")
def exchanges() -> list[Exchange]:
    return load_all(ROOT)


@pytest.fixture
async def upstream(exchanges: list[Exchange]) -> AsyncIterator[CassetteUpstream]:
    async with CassetteUpstream(exchanges) as running:
        yield running


@pytest.fixture
async def gate(upstream: CassetteUpstream) -> AsyncIterator[RunningGateway]:
    # Without injection, so that requests too pass byte for byte.
    upstreams = {name: {"dialect": name, "url": upstream.url, "inject_usage": False} for name in FAMILIES}
    async with RunningGateway(upstreams, telemetry={"log": None}) as running:
        yield running


@pytest.fixture
async def asking(upstream: CassetteUpstream) -> AsyncIterator[RunningGateway]:
    """A gateway that asks for usage where the client does not."""
    upstreams = {name: {"dialect": name, "url": upstream.url} for name in FAMILIES}
    async with RunningGateway(upstreams, telemetry={"log": None}) as running:
        yield running


@dataclass(slots=True)
class Got:
    status: int
    headers: list[tuple[str, str]]
    body: bytes = b""
    aborted: bool = False


async def replay(session: aiohttp.ClientSession, gate: RunningGateway, exchange: Exchange) -> Got:
    """What a client gets. Some recorders kept header names that are none, or values no client could send."""
    headers = [(name, value) for name, value in exchange.request_headers if name and name.lower() not in NOT_SENT]
    headers = [(name, value) for name, value in headers if value.isascii() and value.isprintable()]
    async with session.request(
        exchange.method,
        yarl.URL(f"{gate.url}/{exchange.family}{target(exchange)}", encoded=True),
        data=exchange.request_body or None,
        headers=[*headers, ("x-cassette", exchange.name)],
        skip_auto_headers=("content-type", "user-agent", "accept", "accept-encoding"),
        allow_redirects=False,
    ) as answer:
        pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers]
        got = Got(answer.status, pairs)
        try:
            async for piece in answer.content.iter_any():
                got.body += piece
        except aiohttp.ClientPayloadError:
            got.aborted = True
        return got


def differences(exchange: Exchange, got: Got) -> list[str]:
    """A stream that failed or has no terminal event is aborted; if it did not say so itself, an error event follows."""
    faults = []
    if got.status != exchange.status:
        faults.append(f"status {got.status} for {exchange.status}: {got.body[:200]!r}")
    meter, _ = read(exchange)
    judged = exchange.stream and exchange.status < 400
    if got.aborted != (judged and bool(meter.failed or not meter.terminal)):
        faults.append(f"aborted {got.aborted}, terminal {meter.terminal}, failed {meter.failed!r}")
    told = judged and not meter.failed and not meter.terminal and got.body.startswith(exchange.body)
    if got.body != exchange.body and not told:
        faults.append(f"body of {len(got.body)} bytes for {len(exchange.body)}: ...{got.body[-300:]!r}")
    kept = [
        pair for pair in got.headers if pair[0].lower() not in HOP and not pair[0].lower().startswith("x-tollgate-")
    ]
    sent = [pair for pair in exchange.headers if pair[0].lower() not in HOP]
    missing = [pair for pair in sent if pair not in kept]
    if missing:
        faults.append(f"headers lost: {missing[:3]}")
    return faults


def read(exchange: Exchange) -> tuple[Meter, Answer]:
    """The dialect's reading of the recorded body; its own tests hold that against the recording."""
    sent = f"/{exchange.family}{target(exchange)}".encode()
    route = TABLE.resolve(exchange.method.encode(), sent, "")
    multipart = exchange.request_body[:2] == b"--"
    asked = DIALECTS["opaque" if multipart else route.dialect].read(
        route, Request(exchange.method.encode(), route.path, (), exchange.request_body)
    )
    kind = next((value for name, value in exchange.headers if name.lower() == "content-type"), "")
    meter = DIALECTS[route.dialect].meter(route, asked, exchange.status, kind.encode())
    meter.feed(exchange.body)
    return meter, meter.end()  # the last event may lack its blank line


def usage_of(exchange: Exchange) -> dict[str, int] | None:
    answer = read(exchange)[1]
    usage = answer.usage
    if usage is None or answer.usage_source is UsageSource.ESTIMATED:  # half of it was not said
        return None
    names = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens")
    return {name: getattr(usage, name) for name in names}


async def test_every_recording_passes_unchanged_and_is_recorded(
    exchanges: list[Exchange], upstream: CassetteUpstream, gate: RunningGateway
) -> None:
    faults: dict[str, list[str]] = {}
    ids: dict[str, str] = {}
    slots = asyncio.Semaphore(8)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60)) as session:

        async def one(exchange: Exchange) -> None:
            async with slots:
                try:
                    got = await replay(session, gate, exchange)
                except aiohttp.ClientError as fault:
                    faults[exchange.name] = [repr(fault)]
                    return
            ids[exchange.name] = next((value for name, value in got.headers if name == "x-tollgate-request-id"), "")
            if found := differences(exchange, got):
                faults[exchange.name] = found

        await asyncio.gather(*(one(exchange) for exchange in exchanges))
    received = {name: (raw, body) for name, raw, _, body in upstream.received}
    for exchange in exchanges:
        if received.get(exchange.name) != (target(exchange), exchange.request_body):
            faults.setdefault(exchange.name, []).append("the request changed")
    calls: list[dict[str, Any]] = await asyncio.to_thread(gate.calls, len(exchanges), seconds=60, limit=500)
    recorded = {call["id"]: call for call in calls}
    for exchange in exchanges:
        if exchange.name in ids and (found := wrong_record(exchange, recorded.get(ids[exchange.name]))):
            faults.setdefault(exchange.name, []).append(found)
    assert len(exchanges) > 200
    assert len(calls) == len(exchanges)
    assert not faults, f"{len(faults)} of {len(exchanges)}: {dict(list(faults.items())[:20])}"


def wrong_record(exchange: Exchange, call: dict[str, Any] | None) -> str:
    if call is None:
        return "no record"
    if call["status"] != exchange.status:
        return f"recorded status {call['status']}"
    usage = usage_of(exchange)
    kept = {name: call["usage"][name] for name in usage} if usage else None
    if usage != kept:
        return f"recorded usage {kept} for {usage}"
    if usage and call["usage_source"] not in {"provider", "none"}:
        return f"usage from {call['usage_source']}"
    return ""


ASKED = re.compile(rb'"stream_options":\{"include_usage":true\},|(?<="stream_options":\{)"include_usage":true,?')
# What a server sends unasked cannot be told from what it was asked for, once it was asked: it goes with the rest.
UNASKED = re.compile(
    rb',\s*"usage"\s*:\s*null|data: (?:(?!\n\n).)*"choices":\[\](?:(?!\n\n).)*"usage":\{(?:(?!\n\n).)*\n\n', re.S
)


async def test_asking_for_usage_shows_the_client_nothing_new(
    exchanges: list[Exchange], upstream: CassetteUpstream, asking: RunningGateway
) -> None:
    streams = [one for one in exchanges if one.stream and one.status == 200 and one.family == "openai"]
    faults: dict[str, str] = {}
    asked = 0
    async with aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=60)) as session:
        for exchange in streams:
            before = len(upstream.received)
            got = await replay(session, asking, exchange)
            ((_, _, _, sent),) = upstream.received[before:]
            injected = sent != exchange.request_body
            asked += injected
            if injected and ASKED.sub(b"", sent, count=1) != exchange.request_body:
                faults[exchange.name] = "the request changed in more than one place"
            expected = exchange.body
            if injected and got.body != expected:
                expected = UNASKED.sub(b"", expected)
            if not got.body.startswith(expected) or (len(got.body) > len(expected) and not got.aborted):
                faults[exchange.name] = f"{got.body[-200:]!r} for {expected[-200:]!r}"
    assert asked > 5
    assert not faults, faults
