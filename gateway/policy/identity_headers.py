"""The headers by which programs say who they are, read in one pass over a table. Pure.

Sources: the captured traffic of Claude Code, Codex and opencode; the documented session and metadata headers of
LiteLLM, Portkey, Helicone, Cloudflare AI Gateway, OpenRouter, Bifrost, Bedrock, MCP and A2A; W3C Baggage, and what
LangSmith and Langfuse put into it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from urllib.parse import unquote

from gateway.policy.identity_facts import (
    BAGGAGE,
    GENERIC,
    OWN,
    VENDOR,
    Stated,
    clean_id,
    json_object,
    json_string,
    offer_metadata,
    offer_text,
)
from gateway.policy.trace import read_baggage
from gateway.ports import Headers

DURATIONS_LIMIT = 32
NAMES_KNOWN = 2048
_GENERIC_ID = re.compile(r"[A-Za-z0-9_-]{8,128}")

Reader = Callable[[Stated, bytes], None]
Rule = tuple[str, int, str]


def _is(key: str, rank: int, source: str = "vendor") -> Rule:
    return (key, rank, source)


PLAIN: Mapping[bytes, Rule] = {
    b"x-tollgate-run-id": _is("run", OWN, "header"),
    b"x-tollgate-conversation-id": _is("run", OWN + 1, "header"),
    b"x-tollgate-agent": _is("agent", OWN, "header"),
    b"x-tollgate-agent-id": _is("agent_id", OWN, "header"),
    b"x-tollgate-agent-version": _is("agent_version", OWN, "header"),
    b"x-tollgate-parent-agent": _is("parent_agent", OWN, "header"),
    b"x-tollgate-step": _is("step", OWN, "header"),
    b"x-tollgate-request-class": _is("request_class", OWN, "header"),
    b"x-claude-code-session-id": _is("run", VENDOR),
    b"x-claude-code-agent-id": _is("agent_id", VENDOR),
    b"x-claude-code-parent-agent-id": _is("parent_agent_id", VENDOR),
    b"x-claude-code-agent-type": _is("agent_type", VENDOR),
    b"x-claude-code-request-class": _is("request_class", VENDOR),
    b"x-openai-subagent": _is("agent_type", VENDOR),
    b"x-codex-parent-thread-id": _is("parent_agent_id", VENDOR),
    b"x-opencode-session": _is("run", VENDOR + 1),
    b"x-parent-session-id": _is("parent_run", VENDOR),
    b"x-litellm-session-id": _is("run", VENDOR + 2),
    b"x-litellm-trace-id": _is("trace_run", VENDOR + 2),
    b"x-litellm-agent-id": _is("agent", VENDOR + 2),
    b"x-portkey-trace-id": _is("trace_run", VENDOR + 3),
    b"helicone-session-id": _is("run", VENDOR + 4),
    b"helicone-session-name": _is("agent", VENDOR + 4),
    b"helicone-user-id": _is("end_user", VENDOR + 4),
    b"a2a-context-id": _is("run", VENDOR + 6),
    b"x-a2a-context-id": _is("run", VENDOR + 6),
    b"x-agent-name": _is("agent", GENERIC),
    b"x-title": _is("agent", GENERIC + 1),  # OpenRouter: name of the application
    b"x-openrouter-title": _is("agent", GENERIC + 1),
    b"x-conversation-id": _is("run", GENERIC),
    b"x-session-id": _is("run", GENERIC + 1),
    b"x-thread-id": _is("run", GENERIC + 2),
    b"x-session-affinity": _is("run", GENERIC + 3),
    b"mcp-session-id": _is("run", GENERIC + 4),
}

_BAGGAGE: Mapping[str, tuple[str, int]] = {
    "tollgate.run.id": ("run", 0),
    "gen_ai.conversation.id": ("run", 1),
    "session.id": ("run", 2),
    "gen_ai.agent.name": ("agent", 0),
    "gen_ai.agent.id": ("agent_id", 0),
    "gen_ai.agent.version": ("agent_version", 0),
    "langfuse_session_id": ("run", 3),
    "enduser.id": ("end_user", 0),
    "user.id": ("end_user", 1),
    "langfuse_user_id": ("end_user", 2),
}
# LangSmith, LangGraph: a member of the baggage holds the metadata of the run. Their `run_id` is one turn of a thread.
_LANGSMITH_METADATA = "langsmith-metadata"
_LANGSMITH: Mapping[str, tuple[str, int]] = {
    "conversation_id": ("run", 4),
    "session_id": ("run", 5),
    "thread_id": ("run", 6),
    "user_id": ("end_user", 3),
}
_LANGSMITH_ROOT = re.compile(rb"[0-9]{8}T[0-9]{12}Z([0-9a-f-]{36})(?:\..*)?")


def _codex_turn(stated: Stated, value: bytes) -> None:
    """x-codex-turn-metadata: which thread of which session asks, and why."""
    members = json_object(value)
    for key, name in (("session_id", "session-id"), ("thread_id", "thread-id"), ("agent_name", "agent-name")):
        if text := json_string(members.get(key, b"")):
            stated.codex.setdefault(name, text)
    if kind := json_string(members.get("request_kind", b"")):
        stated.offer("request_class", VENDOR + 1, "vendor", kind)


def _durations(stated: Stated, value: bytes) -> None:
    """x-claude-code-prev-tool-durations: `Bash=742;Read=9`, percent-encoded, milliseconds."""
    for part in unquote(value.decode("latin-1")).split(";", DURATIONS_LIMIT)[:DURATIONS_LIMIT]:
        name, _, text = part.strip().partition("=")
        if text.isascii() and text.isdigit() and len(text) < 12:
            stated.durations.setdefault(unquote(name), []).append(int(text))


def _baggage(stated: Stated, value: bytes) -> None:
    for key, text in read_baggage(value).items():
        rule = _BAGGAGE.get(key)
        if rule is not None:
            stated.offer(rule[0], BAGGAGE + rule[1], "baggage", text)
        elif key == _LANGSMITH_METADATA:
            members = json_object(text.encode("utf-8", "replace"))
            for name in _LANGSMITH.keys() & members.keys():
                fact, rank = _LANGSMITH[name]
                stated.offer(fact, BAGGAGE + rank, "baggage", json_string(members[name]))


def _langsmith_trace(stated: Stated, value: bytes) -> None:
    """langsmith-trace: the runs from the root of the trace down, each with the moment it began."""
    if (found := _LANGSMITH_ROOT.fullmatch(value.strip())) is not None:
        stated.offer("trace_run", VENDOR + 7, "vendor", found[1].decode())


def _retry(stated: Stated, value: bytes) -> None:
    if value.isdigit() and len(value) < 6:
        stated.retry = int(value)


def _credential(stated: Stated, value: bytes) -> None:
    """A signature of AWS is another one in every request: whose it is stands before the first slash."""
    stated.credential += (value.partition(b"/")[0] if value.startswith(b"AWS4-") else value) + b"\n"


def _user_agent(stated: Stated, value: bytes) -> None:
    stated.user_agent = value[:512].decode("latin-1")


def _google_client(stated: Stated, value: bytes) -> None:
    if not stated.user_agent:
        _user_agent(stated, value)


def _idempotency(stated: Stated, value: bytes) -> None:
    stated.idempotency_key = clean_id(value.decode("latin-1"))


def _compaction(stated: Stated, value: bytes) -> None:
    if value.strip().lower() not in (b"", b"0", b"false", b"none"):
        stated.offer("request_class", VENDOR + 1, "vendor", "compaction")


def _vendor_metadata(stated: Stated, value: bytes) -> None:
    offer_metadata(stated, value, VENDOR + 8, "vendor")


def _unprefixed(name: str) -> Reader:
    def read(stated: Stated, value: bytes) -> None:
        stated.codex[name] = value.decode("latin-1")

    return read


_READERS: Mapping[bytes, Reader] = {
    b"authorization": _credential,
    b"x-api-key": _credential,
    b"api-key": _credential,
    b"x-goog-api-key": _credential,
    b"user-agent": _user_agent,
    b"x-goog-api-client": _google_client,
    b"baggage": _baggage,
    b"langsmith-trace": _langsmith_trace,
    b"x-stainless-retry-count": _retry,
    b"idempotency-key": _idempotency,
    b"x-tollgate-idempotency-key": _idempotency,
    b"x-claude-code-prev-tool-durations": _durations,
    b"x-claude-code-compaction": _compaction,
    b"x-codex-turn-metadata": _codex_turn,
    b"originator": _unprefixed("originator"),
    b"session-id": _unprefixed("session-id"),
    b"session_id": _unprefixed("session-id"),
    b"thread-id": _unprefixed("thread-id"),
    b"thread_id": _unprefixed("thread-id"),
    b"x-portkey-metadata": _vendor_metadata,
    b"cf-aig-metadata": _vendor_metadata,
    b"x-litellm-spend-logs-metadata": _vendor_metadata,
    b"x-amzn-bedrock-request-metadata": _vendor_metadata,
}
_PREFIXED = (b"helicone-property-", b"x-bf-dim-")


class _Names(dict[bytes, "Reader | None"]):
    """Header names as received, each with what reads it. A name is looked up once, and kept within bounds."""

    def __init__(self, plain: Mapping[bytes, Rule], also: bytes) -> None:
        self._plain = plain
        self._also = also

    def __missing__(self, name: bytes) -> Reader | None:
        reader = self._look_up(name.lower())
        if len(self) < NAMES_KNOWN:
            self[name] = reader
        return reader

    def _look_up(self, lower: bytes) -> Reader | None:
        rule = self._plain.get(lower)
        if rule is not None:
            return _offer(*rule)
        for prefix in _PREFIXED:
            if lower.startswith(prefix):
                return _dimension(lower[len(prefix) :].decode("latin-1"))
        fallback = _read_elsewhere if lower == self._also else None
        if lower.startswith(b"x-") and lower.endswith(b"-session-id"):
            fallback = _generic_session
        return _READERS.get(lower, fallback)


class HeaderReader:
    """Takes every statement of a call's headers. `also` is one more name to tell apart, lower case."""

    def __init__(self, configured: Mapping[bytes, Rule], also: bytes = b"") -> None:
        self._known = _Names({**PLAIN, **configured}, also)

    def telling(self, headers: Headers) -> tuple[tuple[bytes, bytes], ...]:
        """Those of the headers that say something."""
        known = self._known
        return tuple([pair for pair in headers if known[pair[0]] is not None])

    def read(self, stated: Stated, headers: Headers) -> None:
        for name, value in headers:
            reader = self._known[name]
            if reader is not None:
                reader(stated, value)


def _read_elsewhere(stated: Stated, value: bytes) -> None:
    """For the header of the tenant, of which the last one counts."""


def _offer(key: str, rank: int, source: str) -> Reader:
    def read(stated: Stated, value: bytes) -> None:
        stated.offer(key, rank, source, value.decode("utf-8", "replace"))

    return read


def _dimension(key: str) -> Reader:
    """The free-form dimensions of Helicone and Bifrost name things as metadata objects do."""

    def read(stated: Stated, value: bytes) -> None:
        offer_text(stated, key, value.decode("utf-8", "replace"), VENDOR + 10, "vendor")

    return read


def _generic_session(stated: Stated, value: bytes) -> None:
    """`x-<vendor>-session-id`"""
    text = value.decode("latin-1").strip()
    if _GENERIC_ID.fullmatch(text):
        stated.offer("run", GENERIC + 5, "vendor", text)
