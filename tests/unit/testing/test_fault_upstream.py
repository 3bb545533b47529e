"""The provider that fails as it is told."""

from __future__ import annotations

import asyncio
import sys
from itertools import islice

import aiohttp
import pytest

from gateway.testing.fault_upstream import FAULTS, FaultyProvider, main, played, scenario

QUESTION = {"model": "gpt-4o", "messages": [{"role": "user", "content": "[[say well]]"}]}


@pytest.mark.parametrize(
    ("text", "phases"),
    [
        ("ok", [(0, "ok")]),
        ("20 ok, 30 503, ok", [(20, "ok"), (30, "503"), (0, "ok")]),
        ("1 429_ms  # a storm\n2 529\n\nok", [(1, "429_ms"), (2, "529"), (0, "ok")]),
        ("", [(0, "ok")]),
    ],
)
def test_scenarios(text: str, phases: list[tuple[int, str]]) -> None:
    assert scenario(text) == phases


@pytest.mark.parametrize("text", ["20 no-such", "ok, 503", "x 503 ok"])
def test_what_is_no_scenario(text: str) -> None:
    with pytest.raises(ValueError, match=r"no such fault|how many"):
        scenario(text)


def test_the_last_phase_goes_on() -> None:
    assert list(islice(played(scenario("2 ok, 1 503, 1 429")), 6)) == ["ok", "ok", "503", "429", "429", "429"]


async def ask(up: FaultyProvider, fault: str = "") -> tuple[int, bytes, dict[str, str]]:
    headers = {"x-fault": fault} if fault else {}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{up.url}/v1/chat/completions", json=QUESTION, headers=headers) as answer,
    ):
        return answer.status, await answer.read(), {name.lower(): value for name, value in answer.headers.items()}


async def test_requests_follow_the_scenario_and_the_header_outranks_it() -> None:
    async with FaultyProvider(scenario("1 ok, 2 503, ok")) as up:
        statuses = [(await ask(up))[0] for _ in range(2)]
        statuses += [(await ask(up, "529"))[0], (await ask(up))[0]]
        status, body, _ = await ask(up)
        assert [*statuses, status] == [200, 503, 529, 503, 200]
        assert b'"content":"well"' in body
        assert up.played == ["ok", "503", "529", "503", "ok"]
        up.plays(scenario("409"))
        assert (await ask(up))[0] == 409


@pytest.mark.parametrize(
    ("fault", "header"),
    [
        ("429_seconds", "retry-after"),
        ("429_ms", "retry-after-ms"),
        ("429_date", "retry-after"),
        ("429_tokens", "x-ratelimit-reset-tokens"),
        ("429_anthropic", "anthropic-ratelimit-tokens-reset"),
        ("no_retry", "x-should-retry"),
    ],
)
async def test_limits_in_the_headers_of_each_provider(fault: str, header: str) -> None:
    async with FaultyProvider() as up:
        status, _, headers = await ask(up, fault)
        assert status in {429, 500}
        assert header in headers


@pytest.mark.parametrize("fault", ["refuse", "reset_before_answer", "garbage", "cut_in_chunk", "length_too_long"])
async def test_connections_that_break(fault: str) -> None:
    async with FaultyProvider() as up:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await ask(up, fault)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name.startswith(("stall_", "pings_"))])
async def test_those_that_stall_say_nothing(fault: str) -> None:
    async with FaultyProvider() as up:
        reader, writer = await asyncio.open_connection(up.host, up.port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\nx-fault: %b\r\ncontent-length: 0\r\n\r\n" % fault.encode())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readuntil(b"data:")
        writer.close()
        await writer.wait_closed()


async def test_it_is_a_program_too(tmp_path: object, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert {"ok", "429_date", "slow_drip"} <= set(capsys.readouterr().out.split())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway.testing.fault_upstream", stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("faulty provider listening on http://127.0.0.1:")
    process.terminate()
    assert await process.wait() == 0
