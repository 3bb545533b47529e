"""Outputs of tools that are given again, through the whole pipeline on doubles."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from msgspec import structs

from gateway.call import Who
from gateway.config.schema import Limits, Rates, Runs
from gateway.dialects.mcp_outputs import McpOutputs
from gateway.dialects.tool_outputs import ToolOutputs
from gateway.dialects.tool_paths import MCP_METHODS, Door
from gateway.errors import LimitReached, NotCached, UpstreamReset
from gateway.journal.convert import Converter
from gateway.key import Key
from gateway.pipeline import serve
from gateway.testing.doubles import MemoryDown, World, ask, drive
from gateway.testing.memory_budgets import limit
from gateway.testing.memory_cache import outputs_cached
from gateway.tool import Caching, Price, Terms

SECOND = 10**9
PRICE = Price(5 * 10**9)  # half a cent
AUTH = ((b"authorization", b"Bearer tool-key"),)
FOUND = b'{"hits":[1, 2]}'
SEARCH = "/tools/search/find?q=a&n=1"


def head(body: bytes, *more: tuple[bytes, bytes], kind: bytes = b"application/json") -> Any:
    return ((b"Content-Type", kind), (b"Content-Length", b"%d" % len(body)), *more)


class OneKey:
    """`ports.Keys`: whoever comes has this one."""

    required = True

    def __init__(self, key: Key) -> None:
        self.key = key

    def find(self, presented: bytes) -> Key | None:
        return self.key


class Gate:
    """A world with one tool or server whose outputs are cached; each call has a client of its own."""

    mcp = False
    kind = "tools/search"

    def __init__(
        self,
        *lifetimes: tuple[str, int],
        shared: bool = False,
        override: bool = False,
        key: Key | None = None,
        **spec: Any,
    ) -> None:
        self.world = World()
        caching = Caching(lifetimes or (("/live/**", 0), ("/**", 60 * SECOND)), shared, override)
        name = self.kind.partition("/")[2]
        terms = Terms(name, PRICE, resend=True, caching=caching)
        door = Door("/mcp", MCP_METHODS) if self.mcp else Door("/v1", ("GET", "POST", "DELETE"))
        self.world.tool(terms, door, mcp=self.mcp, **{"auth": AUTH, **spec})
        outputs: Any = McpOutputs(caching) if self.mcp else ToolOutputs(caching, "/v1")
        self.store = outputs_cached(self.world, {self.kind: outputs}, far=True)
        if key is not None:
            self.world.settings["keys"] = OneKey(key)
        self.settings = dict(self.world.settings)
        self.down = self.world.down

    def prepare(self, body: bytes = FOUND, *headers: tuple[bytes, bytes], status: int = 200, **more: Any) -> None:
        self.world.answer(status, head(body, *headers, **more), [body[:5], body[5:]])

    def send(self, path: str = SEARCH, body: bytes = b"", *headers: tuple[bytes, bytes], method: bytes = b"GET") -> str:
        """What the client is told of the cache."""
        self.down = MemoryDown(self.world.log)
        self.world.settings = dict(self.settings)
        drive(serve(ask(path, body, *headers, method=method), self.down, self.world.gateway()))
        assert self.down.head is not None
        self.head = self.down.head[2].decode("latin-1")
        lines = [line.partition(": ") for line in self.head.split("\r\n")]
        return next((value for name, _, value in lines if name == "x-tollgate-cache"), "")

    @property
    def record(self) -> Any:
        return Converter(0).record_of(self.world.journal.records[-1])

    @property
    def sent(self) -> int:
        return len(self.world.upstreams.sent)


# -- HTTP tools -----------------------------------------------------------------------------------------------------


def test_a_hit_is_a_call_of_the_tool_that_costs_nothing_and_says_what_it_saved() -> None:
    gate = Gate()
    gate.prepare(FOUND, (b"Link", b"</p2>; rel=next"), (b"X-RateLimit-Left", b"3"), (b"Date", b"then"))
    assert gate.send() == "miss"
    paid = gate.record
    assert gate.send() == "exact"
    hit = gate.record
    assert gate.down.sent == FOUND
    assert (gate.sent, gate.down.head[3]) == (1, len(FOUND))
    assert (hit.cache, hit.cost, hit.saved, hit.usage_source, hit.outcome) == ("exact", 0, paid.cost, "cached", "ok")
    assert (hit.operation, hit.upstream, hit.attempts, paid.cost) == ("execute_tool", "tools/search", (), 5 * 10**9)
    (tool,) = hit.tools
    assert (tool.name, tool.server, tool.cached, tool.cost, tool.is_error) == ("search", "search", True, 0, False)
    assert not paid.tools[0].cached
    assert "Link: </p2>; rel=next" in gate.head
    assert "RateLimit" not in gate.head
    assert "Date" not in gate.head
    assert "x-tollgate-usage-source: cached" in gate.head
    assert gate.world.names()[-2:] == ["record", "finish"]


@pytest.mark.parametrize(
    ("path", "body", "headers", "method"),
    [
        ("/tools/search/find?q=b&n=1", b"", (), b"GET"),
        ("/tools/search/find?n=1&q=a", b"", (), b"GET"),  # an API may mind the order
        ("/tools/search/find2?q=a&n=1", b"", (), b"GET"),
        (SEARCH, b"{}", ((b"Content-Type", b"application/json"),), b"POST"),
        (SEARCH, b"x", (), b"GET"),
        (SEARCH, b"", (), b"POST"),
        (SEARCH, b"", ((b"Accept", b"text/csv"),), b"GET"),
        (SEARCH, b"", ((b"Accept-Language", b"de"),), b"GET"),
        (SEARCH, b"", ((b"X-Whatever", b"1"),), b"GET"),
        (SEARCH, b"", ((b"Cookie", b"session=2"),), b"GET"),
    ],
)
def test_what_differs_is_another_question(path: str, body: bytes, headers: Any, method: bytes) -> None:
    gate = Gate()
    gate.prepare()
    assert gate.send() == "miss"
    gate.prepare()
    assert gate.send(path, body, *headers, method=method) == "miss"
    assert gate.send() == "exact"


def test_a_json_body_counts_by_its_meaning_and_any_other_as_it_is() -> None:
    gate = Gate()
    kind = (b"Content-Type", b"application/json")
    gate.prepare()
    assert gate.send("/tools/search/q", b'{"a":1,"b":[1.0]}', kind, method=b"POST") == "miss"
    assert gate.send("/tools/search/q", b'{ "b": [1.0], "\\u0061": 1 }', kind, method=b"POST") == "exact"
    for other in (b'{"a":1,"b":[1]}', b"[1]", b'{"a":1,"b":[1.0],"c":null}'):
        gate.prepare()
        assert gate.send("/tools/search/q", other, kind, method=b"POST") == "miss"
    gate.prepare()
    assert gate.send("/tools/search/q", b'{"a":1,"a":1,"b":[1.0]}', kind, method=b"POST") == "bypass"
    assert gate.record.cache_reason == "ambiguous"
    form = (b"Content-Type", b"application/x-www-form-urlencoded")
    for body in (b"a=1&b=2", b"b=2&a=1"):
        gate.prepare()
        assert gate.send("/tools/search/q", body, form, method=b"POST") == "miss"
        assert gate.send("/tools/search/q", body, form, method=b"POST") == "exact"


@pytest.mark.parametrize(
    ("status", "headers", "why"),
    [
        (404, (), "failed"),
        (206, (), "failed"),
        (204, (), "failed"),
        (302, ((b"Location", b"/x"),), "failed"),
        (200, ((b"Set-Cookie", b"a=1"),), "cookie"),
        (200, ((b"Cache-Control", b"private, No-Store"),), "no_store"),
        (200, ((b"Cache-Control", b"private, no-cache"),), "no_cache"),
        (200, ((b"Cache-Control", b"max-age=0, must-revalidate"),), "no_cache"),
        (200, ((b"Cache-Control", b"max-age=soon"),), "no_cache"),
        (200, ((b"Cache-Control", b"max-age=60"), (b"Age", b"60")), "no_cache"),
        (200, ((b"Vary", b"*"),), "vary"),
        (200, ((b"Vary", b"Accept-Encoding, User-Agent"),), "vary"),
    ],
)
def test_what_is_no_whole_success_or_forbids_it_is_never_kept(status: int, headers: Any, why: str) -> None:
    gate = Gate()
    for _ in range(2):
        gate.prepare(b"" if status == 204 else FOUND, *headers, status=status)
        assert gate.send() == "miss"
        assert gate.record.cache_reason == why
    assert (gate.sent, gate.store.puts) == (2, [])


def test_a_vary_over_what_is_in_the_key_is_no_obstacle() -> None:
    gate = Gate()
    gate.prepare(FOUND, (b"Vary", b"Accept-Encoding, Accept, Origin, X-Tenant"), (b"Cache-Control", b"private"))
    assert [gate.send(), gate.send()] == ["miss", "exact"]


@pytest.mark.parametrize(
    ("headers", "good"),
    [
        ((), 60),
        (((b"Cache-Control", b'public, max-age="20"'),), 20),
        (((b"Cache-Control", b"max-age=20"), (b"Age", b"5")), 15),
        (((b"cache-control", b"max-age=20"), (b"Cache-Control", b"Max-Age=10")), 10),
        (((b"Cache-Control", b"max-age=3600, s-maxage=1, must-revalidate"),), 60),
    ],
)
def test_an_output_is_good_for_no_longer_than_its_tool_says(headers: Any, good: int) -> None:
    gate = Gate()
    gate.prepare(FOUND, *headers)
    assert gate.send() == "miss"
    (entry,) = gate.store.puts
    assert entry.expires - entry.created == good * SECOND


def test_the_operators_word_may_count_more_than_the_tools_but_for_what_must_not_be_stored() -> None:
    gate = Gate(override=True)
    gate.prepare(FOUND, (b"Cache-Control", b"no-cache, max-age=0"))
    assert [gate.send(), gate.send()] == ["miss", "exact"]
    gate.prepare(FOUND, (b"Cache-Control", b"no-cache, no-store"))
    assert gate.send("/tools/search/other") == "miss"
    assert gate.record.cache_reason == "no_store"


def test_what_was_cut_or_cannot_be_told_to_be_whole_is_not_kept() -> None:
    gate = Gate()
    gate.world.answer(200, head(FOUND), [FOUND[:5], UpstreamReset()])
    assert gate.send() == "miss"
    gate.world.answer(200, ((b"Content-Type", b"text/plain"),), [b"until the connection ends"])
    assert gate.send() == "miss"
    assert gate.record.cache_reason == "unframed"
    gate.prepare(b'{"hits":[')
    assert gate.send() == "miss"
    assert gate.record.cache_reason == "unread"
    gate.world.answer(
        200, ((b"Content-Type", b"text/event-stream"), (b"Transfer-Encoding", b"chunked")), [b"data: 1\n\n"]
    )
    assert gate.send() == "miss"
    assert gate.record.cache_reason == "unread"
    assert gate.store.puts == []


def test_a_compressed_answer_is_kept_decoded_and_one_that_cannot_be_read_not_at_all() -> None:
    gate = Gate()
    packed = gzip.compress(FOUND)
    gate.prepare(packed, (b"Content-Encoding", b"gzip"))
    assert gate.send() == "miss"
    assert (gate.send(), gate.down.sent, "ncoding" in gate.head) == ("exact", FOUND, False)
    gate.prepare(packed[:-9] + b"x" * 9, (b"Content-Encoding", b"gzip"))
    assert gate.send("/tools/search/other") == "miss"
    assert gate.record.cache_reason == "incomplete"


def test_paths_and_methods_that_are_not_cached_are_not_asked_about() -> None:
    gate = Gate()
    for path, method in (("/tools/search/live/now", b"GET"), ("/tools/search/find", b"DELETE")):
        gate.prepare()
        assert gate.send(path, method=method) == ""
        assert gate.record.cache == ""
    gate.prepare()
    assert gate.send(SEARCH, b"", (b"Range", b"bytes=0-1")) == "bypass"
    assert gate.store.puts == []


def test_a_lifetime_is_that_of_the_path_and_ends() -> None:
    gate = Gate(("/short/*", SECOND), ("/**", 60 * SECOND))
    for path, seconds in (("/tools/search/short/a", 1), ("/tools/search/short/a/b", 60)):
        gate.prepare()
        assert gate.send(path) == "miss"
        (entry,) = [one for one in gate.store.puts[-1:]]
        assert entry.expires - entry.created == seconds * SECOND
    (key,) = [entry.key for entry in gate.store.puts if entry.expires - entry.created == SECOND]
    entry = gate.store.entries[key]
    gate.store.entries[key] = structs.replace(
        entry, created=entry.created - 2 * SECOND, expires=entry.expires + 9 * SECOND
    )
    gate.prepare()
    assert gate.send("/tools/search/short/a") == "miss", "kept under a longer lifetime than is configured now"


def test_clients_may_ask_for_less() -> None:
    gate = Gate()
    control = b"Cache-Control"
    gate.prepare()
    assert gate.send(SEARCH, b"", (control, b"no-store")) == "bypass"
    gate.prepare()
    assert gate.send(SEARCH, b"", (control, b"no-cache")) == "bypass"
    assert gate.send() == "exact"
    gate.send(SEARCH, b"", (control, b"only-if-cached"))
    assert gate.down.sent == FOUND
    gate.send("/tools/search/unknown", b"", (control, b"only-if-cached"))
    assert isinstance(gate.world.journal.records[-1].fault, NotCached)
    gate.send("/tools/search/live/a", b"", (control, b"only-if-cached"))
    assert isinstance(gate.world.journal.records[-1].fault, NotCached), "of which nothing is ever kept"
    gate.prepare()
    assert gate.send(SEARCH, b"", (control, b"max-age=0")) == "bypass"
    assert gate.sent == 3


def test_tenants_users_and_clients_with_credentials_of_their_own_share_nothing() -> None:
    gate = Gate(auth=())
    for who in (Who(), Who(tenant="b"), Who(end_user="u")):
        gate.world.identity.identify = lambda call, who=who: (who, [])  # type: ignore[method-assign, misc]
        for secret in (b"Bearer a", b"Bearer b", b""):
            gate.prepare()
            headers = ((b"Authorization", secret),) if secret else ()
            assert gate.send(SEARCH, b"", *headers) == "miss"
            assert gate.send(SEARCH, b"", *headers) == "exact"
    assert gate.sent == 9


def test_another_url_header_or_key_of_the_operator_makes_all_keys_new() -> None:
    found = set()
    for more in ({}, {"auth": ((b"authorization", b"Bearer 2"),)}, {"headers": ((b"x-space", b"2"),)}):
        gate = Gate(**more)
        gate.prepare()
        gate.send()
        found.add(gate.store.puts[0].key)
    assert len(found) == 3


def test_a_hit_counts_among_requests_per_minute_and_in_no_budget() -> None:
    gate = Gate()
    rates = Limits(rates=(Rates(scope="upstream", match="tools/search", rpm=3, burst=3),))
    limit(gate.world, limits=rates, runs=Runs(budget_usd=0.005, max_calls=1, max_tools=1))
    gate.settings = dict(gate.world.settings)
    gate.prepare()
    assert [gate.send() for _ in range(3)] == ["miss", "exact", "exact"]
    gate.send()
    assert isinstance(gate.world.journal.records[-1].fault, LimitReached)
    assert gate.sent == 1


def test_what_is_larger_than_an_entry_may_be_is_not_kept() -> None:
    gate = Gate()
    big = b'"' + b"x" * 5_000_000 + b'"'
    gate.prepare(big)
    assert (gate.send(), gate.record.cache_reason, gate.store.puts) == ("miss", "large", [])


def test_what_was_asked_before_a_clearing_is_not_kept_behind_it() -> None:
    gate = Gate()
    exchange = gate.world.answer(200, head(FOUND), [FOUND])
    read = exchange.read

    async def clearing() -> bytes:
        gate.store.clear()
        return await read()

    exchange.read = clearing  # type: ignore[method-assign]
    assert gate.send() == "miss"
    assert gate.store.entries == {}


# -- MCP ------------------------------------------------------------------------------------------------------------

RESULT = b'{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"a \\u00e9"}] },"id" : 1}'


class Server(Gate):
    mcp = True
    kind = "mcp/files"

    def __init__(self, *lifetimes: tuple[str, int], **more: Any) -> None:
        super().__init__(*(lifetimes or (("read_*", 60 * SECOND),)), **more)

    def ask(
        self,
        id: Any = 1,
        name: str = "read_a",
        *headers: tuple[bytes, bytes],
        session: bytes = b"",
        params: Any = None,
        **arguments: Any,
    ) -> str:
        given = {"name": name, "arguments": arguments, **(params or {})}
        body = {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": given}
        return self.post(body, *headers, session=session)

    def post(self, body: Any, *headers: tuple[bytes, bytes], session: bytes = b"") -> str:
        more = ((b"Mcp-Session-Id", session),) if session else ()
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.send("/mcp/files", text, *headers, *more, method=b"POST")

    def lists(self, session: bytes = b"", **annotations: Any) -> None:
        tools = [{"name": "read_a", "annotations": annotations}, {"name": "other"}, 7]
        self.prepare(json.dumps({"jsonrpc": "2.0", "id": 9, "result": {"tools": tools}}).encode())
        assert self.post({"jsonrpc": "2.0", "id": 9, "method": "tools/list"}, session=session) == ""

    def stream(self, *messages: bytes) -> None:
        pieces = [b"id: %d\ndata: %b\n\n" % (n, message) for n, message in enumerate(messages)]
        self.world.answer(200, ((b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-cache")), pieces)


def test_a_result_is_given_again_with_the_id_of_whoever_asks() -> None:
    gate = Server()
    gate.prepare(RESULT)
    assert gate.ask(1, path="/x", n=1) == "miss"
    for id, text in ((2, b"2"), ("é", b'"\xc3\xa9"'), (-3, b"-3")):
        assert gate.ask(id, n=1, path="/x") == "exact"
        assert gate.down.sent == RESULT.replace(b'"id" : 1', b'"id" : ' + text)
    hit = gate.record
    (tool,) = hit.tools
    assert (tool.name, tool.server, tool.cached, hit.saved, hit.cost) == ("read_a", "files", True, 5 * 10**9, 0)
    assert gate.sent == 1


def test_what_stands_aside_in_meta_does_not_count_and_all_else_does() -> None:
    gate = Server()
    gate.prepare(RESULT)
    trace = "00-" + "1" * 32 + "-" + "2" * 16 + "-01"
    assert gate.ask(1, params={"_meta": {"progressToken": 1, "traceparent": trace, "k": 1}}) == "miss"
    meta = {"k": 1, "progressToken": "x", "tracestate": "a=b", "baggage": "c=d"}
    assert gate.ask(2, params={"_meta": meta}) == "exact"
    for other in ({"_meta": {"k": 2}}, {"_meta": {}}, {"task": {"ttl": 5}}, {"_meta": {"k": 1, "j": None}}):
        gate.prepare(RESULT)
        assert gate.ask(1, params=other) == "miss"


def test_sessions_are_kept_apart_unless_the_operator_says_that_they_share() -> None:
    for shared, expected in ((False, ["miss", "miss", "exact"]), (True, ["miss", "exact", "exact"])):
        gate = Server(shared=shared)
        gate.prepare(RESULT)
        gate.prepare(RESULT)
        assert [gate.ask(session=session) for session in (b"s1", b"s2", b"s1")] == expected


def test_only_what_the_operator_names_is_cached() -> None:
    gate = Server()
    gate.prepare(RESULT)
    assert gate.ask(1, "write_a") == ""
    for body, why in (
        ([{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_a"}}], "batch"),
        ({"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "read_a"}}, "notification"),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"read_a","arguments":{"a":1,"a":2}}}',
            "ambiguous",
        ),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "read_a", "_meta": 3}}, "ambiguous"),
    ):
        gate.prepare(RESULT)
        assert gate.post(body) == "bypass"
        assert gate.record.cache_reason == why
    assert gate.store.puts == []


@pytest.mark.parametrize(
    "result",
    [
        {"content": [], "isError": True},
        {"content": [], "isError": "no"},
        {"content": [], "resultType": "input_required"},
        {"content": [], "tools": []},
        {"task": {"taskId": "1"}, "content": []},
        {"content": "x"},
        {},
        [],
        None,
    ],
)
def test_failures_and_what_is_no_whole_result_are_not_kept(result: Any) -> None:
    gate = Server()
    gate.prepare(json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())
    assert gate.ask() == "miss"
    failed = isinstance(result, dict) and result.get("isError") is True
    assert gate.record.cache_reason == ("failed" if failed else "unread")
    gate.prepare(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"no"}}')
    assert gate.ask() == "miss"
    gate.prepare(b'{"jsonrpc":"2.0","id":2,"result":{"content":[]}}')  # of another request
    assert gate.ask() == "miss"
    assert gate.store.puts == []


def test_a_stream_is_given_again_as_its_last_message_alone() -> None:
    gate = Server()
    progress = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}'
    gate.stream(b"", progress, RESULT)
    assert gate.ask(params={"_meta": {"progressToken": 1}}) == "miss"
    assert gate.ask("b") == "exact"
    assert gate.down.sent == b"event: message\ndata: " + RESULT.replace(b"1}", b'"b"}') + b"\n\n"
    assert "content-type: text/event-stream" in gate.head
    assert gate.ask(2, "read_a", (b"Accept", b"application/json")) == "exact"
    assert gate.down.sent == RESULT.replace(b"1}", b"2}")
    assert "content-type: application/json" in gate.head


def test_a_document_becomes_a_stream_for_a_client_that_takes_nothing_else() -> None:
    gate = Server()
    gate.prepare(RESULT)
    assert gate.ask() == "miss"
    assert gate.ask(2, "read_a", (b"Accept", b"text/event-stream")) == "exact"
    assert gate.down.sent == b"event: message\ndata: " + RESULT.replace(b"1}", b"2}") + b"\n\n"


@pytest.mark.parametrize(
    "messages",
    [
        (b'{"jsonrpc":"2.0","id":5,"method":"sampling/createMessage","params":{}}', RESULT),
        (b'{"jsonrpc":"2.0","method":"notifications/resources/updated"}', RESULT),
        (b'{"jsonrpc":"2.0","method":"notifications/progress"}',),
        (b'{"jsonrpc":"2.0","id":5,"method":"notifications/progress"}', RESULT),
        (RESULT, RESULT),
        (RESULT[:-1],),
    ],
)
def test_a_stream_in_which_more_happened_or_less_is_not_kept(messages: Any) -> None:
    gate = Server()
    gate.stream(*messages)
    assert gate.ask() == "miss"
    assert gate.store.puts == []


@pytest.mark.parametrize(
    ("annotations", "cached"),
    [
        ({"readOnlyHint": False}, False),
        ({"destructiveHint": True}, False),
        ({"readOnlyHint": True, "destructiveHint": True}, True),
        ({"readOnlyHint": True}, True),
        ({"readOnlyHint": "no"}, True),
        ({}, True),
    ],
)
def test_a_server_that_says_that_a_tool_changes_something_is_believed(annotations: Any, cached: bool) -> None:
    gate = Server()
    gate.prepare(RESULT)
    assert [gate.ask(session=b"s"), gate.ask(session=b"s")] == ["miss", "exact"]
    gate.lists(b"s", **annotations)
    gate.prepare(RESULT)
    assert gate.ask(session=b"s") == ("exact" if cached else "bypass")
    assert cached or gate.record.cache_reason == "not_read_only"


def test_what_a_server_said_in_a_session_counts_there_and_else_what_it_said_last() -> None:
    gate = Server(shared=True)
    gate.prepare(RESULT)
    assert gate.ask(session=b"s1") == "miss"
    gate.lists(b"s1", readOnlyHint=False)
    gate.prepare(RESULT)
    assert gate.ask(session=b"s2") == "bypass", "no list has passed in this one"
    gate.lists(b"s2", readOnlyHint=True)
    assert gate.ask(session=b"s2") == "exact"
    gate.prepare(RESULT)
    assert gate.ask(session=b"s1") == "bypass"
    assert gate.ask(session=b"s3") == "exact"


def test_a_list_in_a_stream_is_heard_too() -> None:
    gate = Server()
    tools = [{"name": "read_a", "annotations": {"readOnlyHint": False}}]
    gate.stream(json.dumps({"jsonrpc": "2.0", "id": 9, "result": {"tools": tools}}).encode())
    gate.post({"jsonrpc": "2.0", "id": 9, "method": "tools/list"})
    gate.prepare(RESULT)
    assert gate.ask() == "bypass"


def test_a_tool_that_a_key_may_not_call_is_refused_before_the_cache() -> None:
    gate = Server(key=Key(id="k1", name="n", tools=("read_b",)))
    gate.ask(1, "read_a", (b"authorization", b"Bearer tg-k1-secret"))
    assert json.loads(gate.down.sent)["error"]["data"]["code"] == "tool_not_allowed"
    assert gate.sent == 0
