"""The official MCP client and server with a real gateway between them: sessions, streams, rights, budgets, kills."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2
import mcp_types as types
import pytest
import uvicorn
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId

from gateway.testing.gateway import PATIENCE, RunningGateway, dead_port

RUN = "run-mcp-1"
PRICE = 0.002


class Memory(EventStore):
    """Events in the order they were stored, for resumption."""

    def __init__(self) -> None:
        self.events: list[tuple[StreamId, Any]] = []

    async def store_event(self, stream_id: StreamId, message: Any) -> EventId:
        self.events.append((stream_id, message))
        return str(len(self.events))

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        stream = self.events[int(last_event_id) - 1][0]
        for number, (of, message) in enumerate(self.events[int(last_event_id) :], int(last_event_id) + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Served:
    """The official server in a thread of its own. `heard` are (method, headers, body) as they came to it."""

    def __init__(self, **options: Any) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.begun: list[str] = []  # methods, as soon as they come
        self.started, self.cancelled = threading.Event(), threading.Event()  # of the slow tool
        self.done: list[str] = []
        server = self.tools()
        app = server.streamable_http_app(**options)

        async def listening(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            self.begun.append(scope["method"])
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            body = bytearray()

            async def hear() -> Any:
                message = await receive()
                body.extend(message.get("body", b""))
                return message

            try:
                await app(scope, hear, send)
            finally:
                self.heard.append((scope["method"], headers, bytes(body)))

        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        config = uvicorn.Config(listening, log_level="error", ws="none", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],), daemon=True)

    def tools(self) -> MCPServer:
        server = MCPServer("files", log_level="CRITICAL")

        @server.tool()
        def add(a: int, b: int) -> int:
            self.done.append("add")
            return a + b

        @server.tool()
        def fail() -> str:
            raise ToolError("it is broken")

        @server.tool(annotations=types.ToolAnnotations(read_only_hint=True))
        def read_file(name: str) -> str:
            self.done.append(f"read {name}")
            return f"content of {name}"

        @server.tool(annotations=types.ToolAnnotations(read_only_hint=False))
        def delete_file(name: str) -> str:
            self.done.append(f"deleted {name}")
            return "gone"

        @server.tool()
        async def steps(ctx: Context[Any, Any], count: int) -> str:
            for number in range(count):
                await ctx.report_progress(number + 1, count, f"step {number + 1}")
            return "all"

        @server.tool()
        async def slow(ctx: Context[Any, Any], seconds: float) -> str:
            await ctx.report_progress(0, 1)
            self.started.set()
            try:
                await anyio.sleep(seconds)
            except BaseException:
                self.cancelled.set()
                raise
            return "late"

        return server

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def __enter__(self) -> Served:
        self.thread.start()
        end = time.monotonic() + PATIENCE
        while not self.server.started:
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(PATIENCE)
        self.listener.close()


MODES = {
    "stateful-sse": {},
    "stateful-json": {"json_response": True},
    "stateless-sse": {"stateless_http": True},
    "stateless-json": {"stateless_http": True, "json_response": True},
}


@pytest.fixture(params=MODES, scope="module")
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(**MODES[request.param]) as server:
        yield server


@pytest.fixture(scope="module")
def stateful() -> Iterator[Served]:
    with Served(event_store=Memory()) as server:
        yield server


def through(server: Served, **more: Any) -> dict[str, Any]:
    entry = {"url": server.url, "allow_private": True, "price": {"usd": PRICE}, **more}
    return {"mcp": {"files": entry}}


@pytest.fixture(scope="module")
def gate(served: Served) -> Iterator[RunningGateway]:
    with RunningGateway({}, **through(served)) as running:
        yield running


@asynccontextmanager
async def connected(
    gate: RunningGateway, mode: str = "legacy", *, run: str = RUN, headers: dict[str, str] | None = None, **more: Any
) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers=headers or {}, timeout=30) as http:
        transport = streamable_http_client(f"{gate.url}/run/{run}/mcp/files", http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=20, **more) as client:  # type: ignore[arg-type]
            yield client


async def executed(gate: RunningGateway, run: str, at_least: int = 1) -> list[dict[str, Any]]:
    """The recorded tool calls of a run."""

    def look() -> list[dict[str, Any]]:
        return [call for call in gate.calls(0) if call["run_id"] == run and call["operation"] == "execute_tool"]

    return await asyncio.to_thread(gate.until, look, lambda found: len(found) >= at_least)


def text(result: Any) -> str:
    return "".join(part.text for part in result.content if isinstance(part, types.TextContent))


async def names(client: Client) -> list[str]:
    return sorted(tool.name for tool in (await client.list_tools()).tools)


ALL = ["add", "delete_file", "fail", "read_file", "slow", "steps"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_everything_works_as_without_the_gate(gate: RunningGateway, served: Served, mode: str) -> None:
    run = f"run-{served.port}-{mode}"
    async with connected(gate, mode, run=run) as client:
        assert await names(client) == ALL
        assert text(await client.call_tool("add", {"a": 2, "b": 3})) == "5"
        failed = await client.call_tool("fail", {})
        assert failed.is_error
        assert "broken" in text(failed)
        assert (await client.call_tool("nothing", {})).is_error
        seen: list[float] = []

        async def progress(done: float, total: float | None, message: str | None) -> None:
            seen.append(done)

        assert text(await client.call_tool("steps", {"count": 3}, progress_callback=progress)) == "all"
    calls = await executed(gate, run, 4)
    tools = [tool for call in calls for tool in call["tools"]]
    assert sorted((tool["name"], tool["is_error"]) for tool in tools if tool["name"] != "nothing") == [
        ("add", False),
        ("fail", True),
        ("steps", False),
    ]
    assert {call["upstream"] for call in calls} == {"mcp/files"}
    assert {call["cost_usd"] for call in calls if call["tools"][0]["name"] != "nothing"} == {PRICE}


async def test_trace_context_in_meta_is_left_as_it_is_and_joins_the_trace(gate: RunningGateway, served: Served) -> None:
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    run = f"trace-{served.port}"
    async with connected(gate, run=run) as client:
        await client.call_tool("add", {"a": 1, "b": 1}, meta={"traceparent": parent, "x": [1, 2]})  # type: ignore[arg-type]
    (call,) = await executed(gate, run, 1)
    assert call["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
    bodies = [json.loads(body) for method, _, body in served.heard if method == "POST" and b"traceparent" in body]
    assert {body["params"]["_meta"]["traceparent"] for body in bodies} == {parent}
    assert bodies[-1]["params"]["_meta"]["x"] == [1, 2]


async def test_metrics_count_each_tool(gate: RunningGateway) -> None:
    async with connected(gate, run="metrics") as client:
        await client.call_tool("read_file", {"name": "a"})
    await executed(gate, "metrics", 1)
    metrics = await asyncio.to_thread(gate.text, "/metrics")
    assert 'tollgate_tool_calls_total{result="ok",server="files",tool="read_file"} 1.0' in metrics
    assert f'tollgate_tool_cost_usd_total{{server="files",tool="read_file"}} {PRICE}' in metrics


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


# -- sessions -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session_gate(stateful: Served) -> Iterator[RunningGateway]:
    with RunningGateway({}, **through(stateful)) as running:
        yield running


async def test_a_session_has_its_id_its_stream_and_its_end(session_gate: RunningGateway, stateful: Served) -> None:
    stateful.heard.clear()
    stateful.begun.clear()
    async with connected(session_gate, run="sessions") as client:
        await names(client)
        await until(lambda: "GET" in stateful.begun)
    await until(lambda: {"GET", "DELETE"} <= {method for method, _, _ in stateful.heard})
    methods = [method for method, _, _ in stateful.heard]
    assert methods.count("GET") == 1
    assert methods.count("DELETE") == 1
    ids = {headers.get("mcp-session-id") for _, headers, body in stateful.heard if b'"initialize"' not in body}
    assert len(ids) == 1
    assert ids != {None}


async def test_a_stream_that_broke_off_is_resumed(session_gate: RunningGateway, stateful: Served) -> None:
    """The client leaves in mid-call and asks for the rest by Last-Event-ID, through the gate."""
    async with httpx2.AsyncClient(timeout=20) as http:
        url = f"{session_gate.url}/run/resume/mcp/files"
        headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2025-06-18"}
        hello = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "t", "version": "1"},
        }
        opened = await http.post(
            url, headers=headers, json={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
        )
        headers["mcp-session-id"] = opened.headers["mcp-session-id"]
        await http.post(url, headers=headers, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        ask = {"name": "slow", "arguments": {"seconds": 1}, "_meta": {"progressToken": 7}}
        message = {"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": ask}
        last = ""
        async with http.stream("POST", url, headers=headers, json=message) as answer:
            async for line in answer.aiter_lines():
                last = line.removeprefix("id: ") if line.startswith("id: ") else last
                if line.startswith("data: {"):
                    break
        assert last
        found: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE):
            while not found:  # the server may end a replay before the rest has come; a client then asks again
                async with http.stream("GET", url, headers={**headers, "last-event-id": last}) as answer:
                    assert answer.status_code == 200
                    async for line in answer.aiter_lines():
                        if line.startswith("data: {"):
                            found = json.loads(line.removeprefix("data: "))
                            break
        assert (found["id"], found["result"]["content"][0]["text"]) == (5, "late")
        await http.delete(url, headers=headers)
    calls = await executed(session_gate, "resume", 1)
    (tool,) = calls[0]["tools"]
    assert (tool["name"], tool["is_error"], calls[0]["cost_usd"]) == ("slow", False, None), "its result was not seen"


async def test_a_cancellation_reaches_the_server(session_gate: RunningGateway, stateful: Served) -> None:
    stateful.started.clear()
    stateful.cancelled.clear()
    async with connected(session_gate, run="cancel") as client:
        calling = asyncio.create_task(client.call_tool("slow", {"seconds": 600}))
        assert await asyncio.to_thread(stateful.started.wait, PATIENCE)
        calling.cancel()
        assert await asyncio.to_thread(stateful.cancelled.wait, PATIENCE)
        assert text(await client.call_tool("add", {"a": 1, "b": 1})) == "2", "the session goes on"


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("options", ["stateful-sse", "stateless-json"])
async def test_tools_that_are_denied_are_neither_seen_nor_called(options: str, mode: str) -> None:
    with Served(**MODES[options]) as server:
        rules = through(server, allow=["add", "*_file"], deny=["delete_*"])
        async with RunningGateway({}, **rules) as gate, connected(gate, mode) as client:
            assert await names(client) == ["add", "read_file"]
            assert text(await client.call_tool("read_file", {"name": "x"})) == "content of x"
            for name in ("delete_file", "Delete_File", "slow", "ADD"):
                with pytest.raises(MCPError) as caught:
                    await client.call_tool(name, {"name": "x"})
                assert caught.value.error.code == types.INVALID_PARAMS
                assert "not offered here" in caught.value.error.message
            assert text(await client.call_tool("add", {"a": 1, "b": 1})) == "2", "the session goes on"
        assert server.done == ["read x", "add"]


async def test_the_key_of_a_client_limits_its_tools(stateful: Served) -> None:
    async with RunningGateway({}, **through(stateful)) as gate:
        made = await asyncio.to_thread(gate.post, "/api/keys", {"name": "ci", "tools": ["add", "files/read_file"]})
        headers = {"authorization": f"Bearer {made['secret']}"}
        async with httpx2.AsyncClient() as http:
            while (await http.delete(f"{gate.url}/mcp/files", headers=headers)).status_code == 401:
                await asyncio.sleep(0.05)  # the workers see it at their next look
        async with connected(gate, headers=headers) as client:
            assert await names(client) == ["add", "read_file"]
            assert text(await client.call_tool("add", {"a": 1, "b": 1})) == "2"
            with pytest.raises(MCPError) as caught:
                await client.call_tool("delete_file", {"name": "x"})
            assert "does not allow the tool delete_file" in caught.value.error.message
        assert all(made["secret"] not in str(headers) for _, headers, _ in stateful.heard)
        async with httpx2.AsyncClient() as http:
            answer = await http.post(f"{gate.url}/mcp/files", json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
            assert answer.status_code == 401
            assert answer.json()["error"]["data"]["code"] == "unauthorized"


async def test_a_session_is_of_the_key_that_opened_it(stateful: Served) -> None:
    async with RunningGateway({}, **through(stateful)) as gate, httpx2.AsyncClient(timeout=20) as http:
        made = [await asyncio.to_thread(gate.post, "/api/keys", {"name": name, "team": name}) for name in ("a", "b")]
        own, other = ({"authorization": f"Bearer {key['secret']}"} for key in made)
        url, more = f"{gate.url}/mcp/files", {"accept": "application/json, text/event-stream"}
        while (await http.delete(url, headers=other)).status_code == 401:
            await asyncio.sleep(0.05)  # the workers see it at their next look
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        opening = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}
        opened = await http.post(url, headers={**own, **more}, json=opening)
        session = {**more, "mcp-session-id": opened.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        answer = await http.post(url, headers={**other, **session}, json=ping)
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (404, "session_not_found")
        resumed = {**other, **session, "last-event-id": "1"}
        for method in ("GET", "DELETE"):
            assert (await http.request(method, url, headers=resumed)).status_code == 404
        answer = await http.post(url, headers={**own, **session}, json=ping)
        assert answer.status_code == 200, "nobody has ended it"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_budget_that_is_spent_is_told_and_the_session_goes_on(stateful: Served, mode: str) -> None:
    budget = {"runs": {"budget_usd": 2 * PRICE}}
    async with RunningGateway({}, **through(stateful), **budget) as gate, connected(gate, mode) as client:
        for _ in range(2):
            await client.call_tool("add", {"a": 1, "b": 1})
        with pytest.raises(MCPError) as caught:
            await client.call_tool("add", {"a": 1, "b": 1})
        assert caught.value.error.code == -32050
        assert caught.value.error.data["code"] == "budget_exceeded"
        assert await names(client) == ALL, "what costs nothing goes on"


async def test_a_limit_is_told_with_its_wait(stateful: Served) -> None:
    rates = [{"scope": "upstream", "match": "mcp/*", "rpm": 60, "burst": 5}]
    async with RunningGateway({}, **through(stateful), limits={"rates": rates}) as gate, connected(gate) as client:
        many = [client.call_tool("add", {"a": 1, "b": 1}) for _ in range(10)]
        found = await asyncio.gather(*many, return_exceptions=True)
        caught = next(one for one in found if isinstance(one, MCPError))
        assert caught.error.data["code"] == "limit_reached"
        assert caught.error.data["retry_after"] >= 1


async def test_a_kill_ends_calls_under_way_and_refuses_the_next(session_gate: RunningGateway, stateful: Served) -> None:
    stateful.started.clear()
    async with connected(session_gate, run="killed") as client:

        async def kill() -> None:
            assert await asyncio.to_thread(stateful.started.wait, PATIENCE)
            await asyncio.to_thread(session_gate.post, "/api/runs/killed/kill", {"reason": "it loops"})

        killing = asyncio.create_task(kill())
        with pytest.raises(MCPError) as caught:
            await client.call_tool("slow", {"seconds": 15})
        await killing
        assert caught.value.error.data["code"] == "run_stopped"
        with pytest.raises(MCPError) as caught:
            await client.call_tool("add", {"a": 1, "b": 1})
        assert "it loops" in caught.value.error.message


async def test_a_server_that_is_not_there_is_told() -> None:
    settings = {"mcp": {"files": {"url": f"http://127.0.0.1:{dead_port()}/mcp", "allow_private": True}}}
    async with RunningGateway({}, **settings) as gate, httpx2.AsyncClient() as http:
        answer = await http.post(f"{gate.url}/mcp/files", json={"jsonrpc": "2.0", "id": "a", "method": "ping"})
        assert answer.status_code == 502
        assert (answer.json()["id"], answer.json()["error"]["code"]) == ("a", types.INTERNAL_ERROR)
        answer = await http.post(f"{gate.url}/mcp/nobody", json={"jsonrpc": "2.0", "id": "a", "method": "ping"})
        assert (answer.status_code, answer.json()["error"]["data"]["code"]) == (404, "unknown_route")


# -- bytes ----------------------------------------------------------------------------------------------------------


async def test_bodies_pass_byte_for_byte_both_ways(stateful: Served) -> None:
    """The same odd request directly and through the gate: the server hears and says the same bytes."""
    odd = b'{ "jsonrpc":"2.0",\t"id" : 7, "x":"\\u00e9\xc3\xa9", "method":"tools\\/call", "params":{"name":"add",'
    odd += b'"arguments":{"b":2 ,"a":1},"_meta":{"z":1,"a":2}} }'
    with Served(stateless_http=True, json_response=True) as server:
        async with RunningGateway({}, **through(server)) as gate, httpx2.AsyncClient() as http:
            headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
            urls = (server.url, f"{gate.url}/mcp/files")
            answers = [await http.post(url, headers=headers, content=odd) for url in urls]
            assert answers[0].content == answers[1].content
            assert answers[0].status_code == answers[1].status_code == 200
            sent = [body for _, _, body in server.heard]
            assert sent[0] == sent[1] == odd


# -- results that are given again -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("options", MODES)
async def test_results_are_given_again_by_the_operators_word_and_not_against_the_servers(
    options: str, mode: str
) -> None:
    cache = {"tools": {"read_*": 60, "delete_file": 60, "steps": 60, "fail": 60}, "shared": mode == "auto"}
    with Served(**MODES[options]) as server:
        async with RunningGateway({}, **through(server, cache=cache)) as gate:
            async with connected(gate, mode, run="again") as client:
                for name in ("a", "a", "b", "a"):
                    assert text(await client.call_tool("read_file", {"name": name})) == f"content of {name}"
                assert await names(client) == ALL  # its list says what each tool does
                for _ in range(2):
                    assert text(await client.call_tool("delete_file", {"name": "x"})) == "gone"
                    assert (await client.call_tool("fail", {})).is_error
                seen: list[float] = []

                async def progress(done: float, total: float | None, message: str | None) -> None:
                    seen.append(done)

                for _ in range(2):
                    told = await client.call_tool("steps", {"count": 2}, progress_callback=progress)
                    assert text(told) == "all"
            async with connected(gate, mode, run="another") as client:
                await client.call_tool("read_file", {"name": "a"})
            calls = [*await executed(gate, "again", 10), *await executed(gate, "another", 1)]
            shown = [(call["tools"][0]["name"], call["cache"]["result"]) for call in calls]
            stateless = "stateless" in options or mode == "auto"
            last = "exact" if stateless else "miss"
            assert shown == [
                *(("read_file", result) for result in ("miss", "exact", "miss", "exact")),
                *(("delete_file", "bypass"), ("fail", "miss")) * 2,
                ("steps", "miss"),
                ("steps", "exact"),
                ("read_file", last),
            ]
            hits = [call for call in calls if call["cache"]["result"] == "exact"]
            assert {(call["cost_usd"], call["tools"][0]["cached"]) for call in hits} == {(0, True)}
            metrics = await asyncio.to_thread(gate.text, "/metrics")
            assert f'result="cached",server="files",tool="read_file"}} {2 + stateless}.0' in metrics
            assert f'tollgate_cost_saved_usd_total{{reason="tool_cache"}} {PRICE * len(hits)}' in metrics
        reads = [done for done in server.done if done.startswith("read")]
        assert reads == ["read a", "read b", *(() if stateless else ("read a",))]
        assert server.done.count("deleted x") == 2
