"""What clients say about themselves, in all the ways they do."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.schema import Identity
from gateway.policy.identity_facts import Stated, clean_id, clean_name, json_object, json_string
from gateway.policy.identity_stated import StatedReader
from gateway.testing.calls import arrive
from gateway.testing.wire import Sent, Truth

RUN = "0b1c2d3e-4f50-4a61-8b72-9c83ad94be05"


def read(
    *headers: tuple[str, str],
    path: str = "/v1/chat/completions",
    body: dict[str, Any] | None = None,
    config: Identity | None = None,
) -> Stated:
    raw = [(name.encode(), value.encode("utf-8")) for name, value in headers]
    content = json.dumps({"messages": [], **(body or {})}).encode()
    call = arrive(Sent(path, raw, content, "", Truth("", "", False), []), 1, 1)
    return StatedReader(config or Identity()).read(call)


RUN_HEADERS = [
    ("X-Tollgate-Run-Id", RUN, "header"),
    ("x-tollgate-conversation-id", RUN, "header"),
    ("baggage", f"x=1,gen_ai.conversation.id={RUN};p=1", "baggage"),
    ("baggage", f"session.id={RUN}", "baggage"),
    ("baggage", f"langfuse_session_id={RUN},langfuse_user_id=u", "baggage"),
    (
        "baggage",
        f"langsmith-project=p,langsmith-metadata={quote(json.dumps({'thread_id': RUN, 'run_id': 'turn'}))}",
        "baggage",
    ),
    ("baggage", f"langsmith-metadata={quote(json.dumps({'thread_id': 't', 'session_id': RUN, 'n': 3}))}", "baggage"),
    ("baggage", "langsmith-metadata=%7B%22run_id%22:%22turn-1234%22", ""),
    ("baggage", "langsmith-metadata=%5B1%5D,langsmith-tags=a", ""),
    ("X-Claude-Code-Session-Id", RUN, "vendor"),
    ("X-Litellm-Session-Id", RUN, "vendor"),
    ("Helicone-Session-Id", RUN, "vendor"),
    ("Helicone-Property-Session", "", ""),
    ("Helicone-Property-SessionId", RUN, "vendor"),
    ("x-portkey-metadata", json.dumps({"session_id": RUN, "_user": "u"}), "vendor"),
    ("cf-aig-metadata", json.dumps({"conversationId": RUN}), "vendor"),
    ("x-litellm-spend-logs-metadata", json.dumps({"thread-id": RUN}), "vendor"),
    ("X-Amzn-Bedrock-Request-Metadata", json.dumps({"threadId": RUN}), "vendor"),
    ("x-bf-dim-conversation_id", RUN, "vendor"),
    ("x-opencode-session", RUN, "vendor"),
    ("x-session-id", RUN, "vendor"),
    ("x-session-affinity", RUN, "vendor"),
    ("x-conversation-id", RUN, "vendor"),
    ("Mcp-Session-Id", RUN, "vendor"),
    ("A2A-Context-Id", RUN, "vendor"),
    ("x-acme-session-id", RUN, "vendor"),
    ("x-acme-session-id", "short", ""),
    ("acme-session-id", RUN, ""),
    ("session-id", RUN, ""),
    ("x-request-id", RUN, ""),
]


@pytest.mark.parametrize(("name", "value", "source"), RUN_HEADERS)
def test_headers_that_state_a_run(name: str, value: str, source: str) -> None:
    fact = read((name, value)).facts.get("run")
    assert (fact.value, fact.source) == (RUN, source) if source else fact is None, fact


RUN_BODIES = [
    {"conversation": RUN},
    {"conversation": {"id": RUN}},
    {"metadata": {"session_id": RUN}},
    {"metadata": {"runId": RUN}},
    {"metadata": {"user_id": json.dumps({"device_id": "d", "account_uuid": "acc", "session_id": RUN})}},
    {"metadata": {"user_id": f"user_{'0af' * 20}_account_acc_session_{RUN}".replace("acc_", "acc0_")}},
    {"client_metadata": {"thread_id": RUN}},
    {"requestMetadata": {"conversationId": RUN}},
    {"labels": {"session-id": RUN}},
    {"litellm_session_id": RUN},
    {"litellm_metadata": {"session_id": RUN}},
    {"session_id": RUN},
    {"conversation_id": RUN},
    {"thread_id": RUN},
]


@pytest.mark.parametrize("body", RUN_BODIES)
def test_body_fields_that_state_a_run(body: dict[str, Any]) -> None:
    fact = read(body=body).facts["run"]
    assert (fact.value, fact.source) == (RUN, "body")


@pytest.mark.parametrize(
    "body",
    [
        {"user": RUN},
        {"safety_identifier": RUN},
        {"prompt_cache_key": RUN},
        {"metadata": {"user_id": RUN}},
        {"metadata": {"topic": RUN}},
        {"metadata": RUN},
        {"metadata": [RUN]},
        {"metadata": {"session_id": 5}},
        {"metadata": {"session_id": "x" * 129}},
        {"metadata": {"session_id": RUN, "padding": "x" * 20_000}},
        {"conversation": None},
        {"conversation": {"id": {"deep": RUN}}},
    ],
)
def test_body_fields_that_state_none(body: dict[str, Any]) -> None:
    assert "run" not in read(body=body).facts


@pytest.mark.parametrize("user_agent", ["codex_cli_rs/0.169.0 (Debian)", "opencode/1.18.33 ai-sdk/6"])
def test_a_cache_key_is_a_run_where_the_client_makes_it_one(user_agent: str) -> None:
    assert read(("user-agent", user_agent), body={"prompt_cache_key": RUN}).value("run") == RUN


def test_end_users_are_no_runs() -> None:
    assert read(body={"user": "u-1"}).value("end_user") == "u-1"
    assert read(body={"user": "u-1", "safety_identifier": "s-1"}).value("end_user") == "s-1"
    assert read(body={"metadata": {"user_id": "opaque"}}).value("end_user") == "opaque"
    assert read(("helicone-user-id", "h-1"), body={"user": "u-1"}).value("end_user") == "h-1"
    assert read(("baggage", "enduser.id=b-1")).value("end_user") == "b-1"
    claude = {"metadata": {"user_id": json.dumps({"account_uuid": "acc", "session_id": RUN})}}
    assert read(body=claude).value("end_user") == "acc"


def test_a_trace_id_of_a_peer_is_a_run_but_no_conversation() -> None:
    for header in ("x-litellm-trace-id", "x-portkey-trace-id"):
        stated = read((header, RUN))
        assert (stated.value("trace_run"), stated.value("run")) == (RUN, "")


def test_the_root_of_a_langsmith_trace_is_a_run_but_no_conversation() -> None:
    root, child = "4d2b6c1e-0000-4000-8000-00000000000a", "4d2b6c1e-0000-4000-8000-00000000000b"
    for path in ("", f".20260311T180533000001Z{child}"):
        stated = read(("langsmith-trace", f"20260311T180532123456Z{root}{path}"))
        assert (stated.value("trace_run"), stated.value("run")) == (root, "")
    assert "trace_run" not in read(("langsmith-trace", f"yesterdayZ{root}")).facts


def test_the_order_of_statements() -> None:
    """The URL outranks our headers, they what is configured, that baggage, that vendors, they the body."""
    config = Identity(run_header="X-Job", agent_header="X-Role")
    said = [
        ("x-session-id", "generic1"),
        ("x-claude-code-session-id", "vendor"),
        ("baggage", "session.id=baggage,gen_ai.agent.name=baggage"),
        ("X-JOB", "configured"),
        ("x-tollgate-run-id", "ours"),
        ("x-role", "configured"),
    ]
    body = {"metadata": {"session_id": "body", "agent": "body"}}
    found = []
    while True:
        found.append(read(*said, body=body, config=config).value("run"))
        if not said:
            break
        said = [pair for pair in said if pair[0].lower() != "x-role"][:-1]
    assert found == ["ours", "configured", "baggage", "vendor", "generic1", "body"]
    url = read(("x-tollgate-run-id", "ours"), path="/run/url/agent/scout/v1/chat/completions", body=body)
    assert (url.value("run"), url.facts["run"].source, url.value("agent")) == ("url", "url", "scout")
    assert read(("X-Role", "configured"), body=body, config=config).value("agent") == "configured"


def test_a_version_in_the_url_comes_before_that_of_the_header() -> None:
    header = ("x-tollgate-agent-version", "1.4")
    assert read(header, path="/version/2.0/agent/scout/v1/chat/completions").agent_version == "2.0"
    assert read(header, path="/agent/scout/v1/chat/completions").agent_version == "1.4"


def test_our_own_headers() -> None:
    own = {"agent": "scout", "agent-version": "1.2", "parent-agent": "boss", "step": "7", "request-class": "main"}
    stated = read(*((f"X-Tollgate-{name}", value) for name, value in own.items()))
    assert {key.replace("_", "-"): fact.value for key, fact in stated.facts.items()} == own


def test_codex_states_session_thread_and_parent() -> None:
    turn = {
        "session_id": RUN,
        "thread_id": "t-2",
        "agent_name": "/".join(("", "root", "scout")),
        "request_kind": "compaction",
    }
    stated = read(
        ("user-agent", "codex_exec/0.169.0"),
        ("x-codex-turn-metadata", json.dumps(turn)),
        ("x-codex-parent-thread-id", "t-1"),
    )
    said = {key: fact.value for key, fact in stated.facts.items()}
    assert said == {
        "run": RUN,
        "thread": "t-2",
        "agent_type": "scout",
        "parent_agent_id": "t-1",
        "request_class": "compaction",
    }
    assert read(("originator", "codex_vscode"), ("session_id", RUN), ("thread-id", "t-1")).value("thread") == "t-1"


def test_durations_that_the_client_reports() -> None:
    header = "x-claude-code-prev-tool-durations"
    assert read((header, "Bash%3D742%3BRead=9;Bash=3")).durations == {"Bash": [742, 3], "Read": [9]}
    assert read((header, "mcp__a%253Bb=1;x;=;y=-1;z=1e3;w=99999999999999")).durations == {"mcp__a;b": [1]}
    assert len(read((header, ";".join(f"t{n}=1" for n in range(100)))).durations) == 32


def test_the_credential_is_wherever_the_api_has_it() -> None:
    assert read(("Authorization", "Bearer a"), ("x-api-key", "b")).credential == b"Bearer a\nb\n"
    path = "/v1beta/models/g:generateContent"
    assert read(("X-Goog-Api-Key", "c"), path=path + "?key=d").credential == b"c\n"
    assert read(path=path + "?alt=sse&key=d").credential == b"key=d"
    assert read(path=path + "?monkey=d").credential == b""


def test_retry_counts() -> None:
    assert [read(("x-stainless-retry-count", text)).retry for text in ("0", "3", "", "-1", "x", "9" * 9)] == [
        *(0, 3),
        *(-1, -1, -1, -1),
    ]


def test_the_tenant_comes_from_the_configured_header_alone() -> None:
    config = Identity(tenant="house", tenant_header="X-Team")
    assert read(("x-team", "acme corp"), config=config).tenant == "acme-corp"
    assert read(("x-team", " "), config=config).tenant == "house"
    assert read(("x-team", "acme")).tenant == "default"


@given(st.text(max_size=200))
def test_ids_and_names_are_clean(text: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:@/-_")
    for value, limit in ((clean_id(text), 128), (clean_name(text), 63)):
        assert set(value) <= allowed
        assert len(value) <= limit


def test_ids_that_are_none() -> None:
    assert clean_id(" a b+c ") == "a_b_c"
    assert [clean_id(text) for text in ("", "   ", "???", "a\nb", "x" * 129)] == [""] * 5
    assert clean_name("Ünï Agent! 2") == "-n--Agent--2"
    assert clean_name("x" * 100) == "x" * 63


@given(st.binary(max_size=100))
def test_any_json_is_read(raw: bytes) -> None:
    assert isinstance(json_string(raw), str)
    assert isinstance(json_object(raw), dict)


def test_names_of_headers_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.identity_headers.NAMES_KNOWN", 50)
    reader = StatedReader(Identity())
    for n in range(100):
        sent = Sent("/v1/models", [(b"x-%d-session-id" % n, RUN.encode())], b"", "", Truth("", "", False), [])
        assert reader.read(arrive(sent, 1, 1)).value("run") == RUN
    assert len(reader._headers._known) == 50


def test_what_one_call_says_is_not_taken_for_the_next_with_equal_headers() -> None:
    reader = StatedReader(Identity(), b"secret")
    key = (b"x-goog-api-key", b"k")

    def said(path: str, *headers: tuple[bytes, bytes], **body: Any) -> Stated:
        sent = Sent(path, list(headers), json.dumps({"messages": [], **body}).encode(), "", Truth("", "", False), [])
        return reader.read(arrive(sent, 1, 1))

    chat, gemini = "/v1/chat/completions", "/v1beta/models/g:generateContent"
    bare = said(chat, key)
    assert said(f"/run/{RUN}{chat}", key).value("run") == RUN
    assert said(chat, key, metadata={"session_id": RUN}).value("run") == RUN
    assert said(chat, key).facts == bare.facts == {}
    scopes = [said(gemini).scope, said(gemini + "?key=a").scope, said(gemini + "?key=b").scope, bare.scope]
    assert len(set(scopes)) == 4
    assert said(gemini + "?key=a").scope == scopes[1]
    assert said(gemini).scope == scopes[0]


def test_whose_signature_it_is_counts_and_not_the_signature() -> None:
    reader = StatedReader(Identity(), b"secret")

    def scope(whose: bytes, rest: bytes) -> bytes:
        header = (b"authorization", b"AWS4-HMAC-SHA256 Credential=" + whose + b"/20261128/us-east-1/bedrock, " + rest)
        return reader.read(arrive(Sent("/v1/messages", [header], b"{}", "", Truth("", "", False), []), 1, 1)).scope

    assert scope(b"AKID1", b"Signature=1") == scope(b"AKID1", b"Signature=2") != scope(b"AKID2", b"Signature=1")


def test_sets_of_headers_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.policy.identity_stated.SETS_KEPT", 20)
    reader = StatedReader(Identity())
    for n in range(50):
        for size in (1, 3_000):
            headers = [(b"x-session-id", RUN.encode()), (b"authorization", b"%d" % n * size)]
            sent = Sent("/v1/models", headers, b"", "", Truth("", "", False), [])
            stated = reader.read(arrive(sent, 1, 1))
            assert (stated.value("run"), stated.credential) == (RUN, b"%d" % n * size + b"\n")
        assert len(reader._read) <= 20
