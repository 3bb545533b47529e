"""HTTP tools through a real gateway: one key, one budget and one record for models and tools alike."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from gateway.testing.raw import NoAnswer, RawClient

RUN = {"x-tollgate-run-id": "run-tools-1"}
SECRET = "tool-secret-123456"


class ToolServer:
    """A tool on loopback; `seen` are the requests it got."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self.seen.append((request.method, request.raw_path, {k.lower(): v for k, v in request.headers.items()}, body))
        if "/redirect" in request.path:
            return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/inside"})
        if "/fail" in request.path:
            return web.Response(status=500, text="broken")
        if "/slow" in request.path:
            await asyncio.sleep(30)
        if "/data" in request.path:
            return web.json_response({"n": len(self.seen)}, headers={"Link": "</2>; rel=next"})
        if "/stream" in request.path:
            response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await response.prepare(request)
            for number in range(3):
                await response.write(b"data: %d\n\n" % number)
            return response
        return web.Response(body=b"\x00\x01raw" + body, headers={"x-credits": "2", "Content-Type": "application/x-own"})

    async def __aenter__(self) -> ToolServer:
        self.runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()


@pytest.fixture
async def tool() -> AsyncIterator[ToolServer]:
    async with ToolServer() as server:
        yield server


def configured(tool: ToolServer) -> dict[str, Any]:
    price = {"usd": 0.001, "unit_header": "x-credits", "max_units": 3}
    more = {"allow_private": True, "timeout": 2}
    return {
        "search": {
            "url": f"{tool.url}/v1",
            "key": "$TOOL_KEY",
            "paths": ["/find/*", "/stream"],
            "price": price,
            **more,
        },
        "free": {"url": tool.url, **more},
        "named": {"url": tool.url.replace("127.0.0.1", "localhost"), **more},
        "outside": {"url": "http://tollgate-rebind.invalid/", "timeout": 2},
    }


async def fetch(url: str, method: str = "GET", **more: Any) -> tuple[int, bytes, dict[str, str]]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, URL(url, encoded=True), allow_redirects=False, **more) as answer,
    ):
        return answer.status, await answer.read(), {k.lower(): v for k, v in answer.headers.items()}


async def test_tools_are_called_paid_for_and_recorded(tool: ToolServer) -> None:
    settings: dict[str, Any] = {"tools": configured(tool), "runs": {"budget_usd": 0.009}}
    async with RunningGateway({}, env={"TOOL_KEY": SECRET}, **settings) as gate:
        status, body, headers = await fetch(f"{gate.url}/tools/search/find/7?q=a%20b", "POST", data=b"x", headers=RUN)
        assert (status, body, headers["content-type"]) == (200, b"\x00\x01rawx", "application/x-own")
        assert headers["x-tollgate-cost-usd"] == "0.002000000000"
        method, path, sent, _ = tool.seen[-1]
        assert (method, path, sent["authorization"]) == ("POST", "/v1/find/7?q=a%20b", f"Bearer {SECRET}")
        status, body, _ = await fetch(f"{gate.url}/tools/search/stream", headers=RUN)
        assert (status, body) == (200, b"data: 0\n\ndata: 1\n\ndata: 2\n\n")
        status, _, headers = await fetch(f"{gate.url}/tools/free/redirect", headers=RUN)
        assert (status, headers["location"], len(tool.seen)) == (307, "http://127.0.0.1:1/inside", 3)
        assert (await fetch(f"{gate.url}/tools/free/fail", headers=RUN))[:2] == (500, b"broken")
        assert (await fetch(f"{gate.url}/tools/named/x", headers=RUN))[0] == 200
        for path, code in (("search/admin", 403), ("search/find/%2e%2e", 400), ("nobody/x", 404), ("free/..;/x", 400)):
            assert (await fetch(f"{gate.url}/tools/{path}"))[0] == code
        status, body, _ = await fetch(f"{gate.url}/tools/search/find/7", headers=RUN)
        assert status == 200
        status, body, _ = await fetch(f"{gate.url}/tools/search/find/7", headers=RUN)
        assert (status, json.loads(body)["error"]["tollgate_code"]) == (402, "budget_exceeded")
        status, body, _ = await fetch(f"{gate.url}/tools/outside/x")
        assert (status, json.loads(body)["error"]["code"]) == (502, "upstream_dns_failed")

        calls = await asyncio.to_thread(gate.calls, 12)
        made = {call["route"] for call in calls}
        assert "/tools/{tool}" in made
        first = calls[0]
        assert (first["operation"], first["cost_usd"], first["run_id"]) == ("execute_tool", 0.002, "run-tools-1")
        metrics = await asyncio.to_thread(gate.text, "/metrics")
        assert 'tollgate_tool_calls_total{result="ok",server="search",tool="search"} 3.0' in metrics
        assert 'tollgate_tool_calls_total{result="error",server="free",tool="free"} 1.0' in metrics
        assert 'tollgate_tool_cost_usd_total{server="search",tool="search"} 0.004' in metrics
        run = await asyncio.to_thread(gate.get, "/api/runs/run-tools-1")
        assert (run["tool_calls"], run["tool_errors"], run["cost_usd"]) == (6, 1, 0.004)
        assert SECRET not in json.dumps(calls) + metrics + gate.log


async def test_a_timeout_is_one_of_the_tool(tool: ToolServer) -> None:
    async with RunningGateway({}, env={"TOOL_KEY": SECRET}, tools=configured(tool)) as gate:
        status, body, _ = await fetch(f"{gate.url}/tools/free/slow")
        assert (status, json.loads(body)["error"]["code"]) == (504, "upstream_first_byte_timeout")


@pytest.fixture
def fake() -> Iterator[FakeUpstream]:
    with FakeUpstream(11) as running:
        yield running


async def test_a_tool_that_passes_through_is_not_counted_again_in_llm_traffic(
    tool: ToolServer, fake: FakeUpstream
) -> None:
    upstreams = {"openai": {"dialect": "openai", "url": fake.url, "provider": "openai"}}
    async with RunningGateway(upstreams, env={"TOOL_KEY": SECRET}, tools=configured(tool)) as gate:
        headers = {**RUN, "authorization": "Bearer any"}
        asked: dict[str, Any] = {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "[[tool free {}]] [[tool other {}]]"}],
            "tools": [{"type": "function", "function": {"name": name}} for name in ("free", "other")],
        }
        _, body, _ = await fetch(f"{gate.url}/v1/chat/completions", "POST", json=asked, headers=headers)
        message = json.loads(body)["choices"][0]["message"]
        calls = message["tool_calls"]
        assert (await fetch(f"{gate.url}/tools/free/x", headers=RUN))[0] == 200
        asked["messages"] += [message, *({"role": "tool", "tool_call_id": c["id"], "content": "ok"} for c in calls)]
        await fetch(f"{gate.url}/v1/chat/completions", "POST", json=asked, headers=headers)
        recorded = await asyncio.to_thread(gate.calls, 3)
        assert [[t["name"] for t in call["tools"]] for call in recorded][1] == ["free"]
        names = sorted(t["name"] for t in recorded[2]["tools"])
        assert names == sorted(c["function"]["name"] for c in calls if c["function"]["name"] != "free")
        metrics = await asyncio.to_thread(gate.text, "/metrics")
        assert metrics.count('tool="free"') > 0
        assert 'server="client",tool="free"' not in metrics


async def test_outputs_are_given_again_until_they_are_forgotten(tool: ToolServer) -> None:
    cache = {"ttl": 60, "paths": {"/live/**": 0}}
    entry = {"url": tool.url, "allow_private": True, "read_only": True, "price": {"usd": 0.001}, "cache": cache}
    async with RunningGateway({}, tools={"search": entry, "other": {**entry, "cache": None}}) as gate:

        async def ask(path: str, method: str = "GET", **more: Any) -> tuple[str, bytes]:
            status, body, headers = await fetch(f"{gate.url}/tools/{path}", method, headers=RUN, **more)
            assert status == 200
            return headers.get("x-tollgate-cache", ""), body

        assert await ask("search/data?q=a") == ("miss", b'{"n": 1}')
        for _ in range(4):
            assert await ask("search/data?q=a") == ("exact", b'{"n": 1}')
        assert await ask("search/data", "POST", json={"a": 1, "b": 2}) == ("miss", b'{"n": 2}')
        assert await ask("search/data", "POST", json={"b": 2, "a": 1}) == ("exact", b'{"n": 2}')
        assert (await ask("search/live/data"))[0] == (await ask("other/data"))[0] == ""
        calls = await asyncio.to_thread(gate.calls, 9)
        assert len(calls) == 9
        hits = [call for call in calls if call["cache"] and call["cache"]["result"] == "exact"]
        assert {(call["cost_usd"], call["tools"][0]["server"], call["tools"][0]["cached"]) for call in hits} == {
            (0, "search", True)
        }
        run = await asyncio.to_thread(gate.get, "/api/runs/run-tools-1")
        assert (run["tool_calls"], run["cost_usd"]) == (9, 0.004)
        metrics = await asyncio.to_thread(gate.text, "/metrics")
        assert f'tollgate_tool_calls_total{{result="cached",server="search",tool="search"}} {len(hits)}.0' in metrics
        assert f'tollgate_cache_lookups_total{{result="hit",tier="tool"}} {len(hits)}.0' in metrics
        await asyncio.sleep(0.2)  # written behind the calls
        for tool_name, count in (("nobody", 0), ("search", 2)):
            async with (
                aiohttp.ClientSession() as session,
                session.delete(f"{gate.admin_url}/api/cache?tool={tool_name}") as answer,
            ):
                assert await answer.json() == {"cleared": count}
        assert (await ask("search/data?q=a"))[0] == "miss"


# -- nobody but the operator says where a tool is (RELIABILITY G7) ----------------------------------------------------

TARGETS = [
    *("http://{inside}/secret", "http://tool@{inside}/secret", "//{inside}/secret", "@{inside}/secret", "{inside}"),
    *("/tools/free/http://{inside}/secret", "/tools/free//{inside}/secret", "/tools/free/@{inside}/secret"),
    *("/tools/free@{inside}/secret", "/tools/free:80@{inside}/", "/tools/http://{inside}/secret", "/tools/@{inside}/"),
    *("/tools/free/..//{inside}/", "/tools/free/%2f%2f{inside}/secret", "/tools/free/%5c%5c{inside}/secret"),
    *("/tools/free/\\\\{inside}/secret", "/tools/free/%252f%252f{inside}/", "/tools/free/%68%74%74%70://{inside}/"),
    *("/tools/free/x?url=http://{inside}/secret", "/tools/free/x#@{inside}/secret", "/tools/free/;@{inside}/secret"),
    *("/tools/free?x@{inside}/secret", "/tools/free/x%0d%0aHost:%20{inside}", "/tools/free/x%20HTTP/1.1"),
    *("/mcp/server/http://{inside}/", "/mcp/server@{inside}/", "/mcp/server?url=http://{inside}/", "/mcp//{inside}/"),
]
HEADERS = [
    *("Host: {inside}", "X-Forwarded-Host: {inside}", "X-Forwarded-For: {inside}", "Forwarded: host={inside}"),
    *("X-Original-URL: http://{inside}/secret", "X-Rewrite-URL: http://{inside}/secret", "X-Host: {inside}"),
    *("X-HTTP-Method-Override: CONNECT", "Proxy-Connection: keep-alive", "Connection: Host", "Via: 1.1 {inside}"),
    *("x-tollgate-upstream: http://{inside}", "x-portkey-custom-host: http://{inside}", "Destination: {inside}"),
    *("Upgrade: TLS/1.3", "Upgrade: h2c", "Connection: Upgrade\r\nUpgrade: websocket", "Host: tool\r\nHost: {inside}"),
    *("Content-Location: http://{inside}/", "Referer: http://{inside}/", "Origin: http://{inside}"),
]


async def test_nothing_in_a_request_leads_anywhere_but_to_the_origin_of_the_tool(tool: ToolServer) -> None:
    """Absolute targets, user parts, encoded slashes, headers, tunnels, redirects: the other server hears nothing."""
    async with ToolServer() as inside:
        address = inside.url.removeprefix("http://")
        servers = {"server": {"url": f"{tool.url}/mcp", "allow_private": True}}
        async with RunningGateway({}, env={"TOOL_KEY": SECRET}, tools=configured(tool), mcp=servers) as gate:
            port = URL(gate.url).port or 0
            lines = [f"GET {target} HTTP/1.1\r\nHost: gate" for target in TARGETS]
            lines += [f"{method} {{inside}} HTTP/1.1\r\nHost: {{inside}}" for method in ("CONNECT", "GET", "TRACE")]
            for header in HEADERS:
                host = "" if header.startswith("Host:") else "Host: gate\r\n"
                lines.append(f"GET /tools/free/plain HTTP/1.1\r\n{host}{header}")
            lines += ["GET /tools/free/redirect HTTP/1.1\r\nHost: gate", "CONNECT /tools/free/x HTTP/1.1\r\nHost: gate"]
            for line in lines:
                await asyncio.to_thread(raw, port, line.format(inside=address).encode() + b"\r\n\r\n")
            calls = await asyncio.to_thread(gate.calls)
        assert inside.seen == []
        assert len(tool.seen) > len(HEADERS) / 2
        for _, path, headers, _ in tool.seen:
            assert headers["host"] == tool.url.removeprefix("http://")
            assert not headers.keys() & {"x-forwarded-host", "forwarded", "x-original-url", "x-http-method-override"}
            assert path.startswith("/")
            assert not path.startswith("//")
        assert {call["upstream"] for call in calls} <= {"tools/free", "mcp/server", "openai", ""}
        assert not any(call["status"] == 101 for call in calls)


def raw(port: int, request: bytes) -> None:
    with RawClient(port, timeout=5) as client:
        client.send(request)
        with contextlib.suppress(NoAnswer):
            client.answer()
