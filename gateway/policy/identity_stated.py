"""What a call says about itself: URL, headers and body together. Pure; never raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any

from msgspec import structs

from gateway.call import Call, Request
from gateway.config.schema import Identity
from gateway.policy.identity_agents import is_codex, states_cache_key
from gateway.policy.identity_facts import (
    BODY,
    CONFIGURED,
    URL,
    VENDOR,
    Stated,
    clean_name,
    json_object,
    json_string,
    offer_metadata,
)
from gateway.policy.identity_headers import HeaderReader

CREDENTIAL_IN_QUERY = b"key="
CACHE_KEY = "prompt_cache_key"
SETS_KEPT, SAID_KEPT = 1024, 2048  # sets of headers and fields, and bytes of values in each
BODIES_KEPT = 4  # sets of fields per head


Said = tuple[tuple[bytes | str, bytes], ...]  # headers (bytes), then fields of the body (str) as raw JSON


class StatedReader:
    """`read(call)` gives all that the call says about itself. Built once from the configuration.

    Most calls say what an earlier one said. What is said by headers and body is read once and kept, in memory and
    within bounds. `secret` keys the scopes.
    """

    def __init__(self, config: Identity, secret: bytes = b"") -> None:
        self._tenant = config.tenant
        self._tenant_header = (config.tenant_header or "").lower().encode()
        self._secret = secret
        configured = (("run", config.run_header), ("agent", config.agent_header))
        self._headers = HeaderReader(
            {header.lower().encode(): (key, CONFIGURED, "header") for key, header in configured if header},
            self._tenant_header,
        )
        self._read: dict[Said, Stated] = {}

    def read(self, call: Call) -> Stated:
        """What is given must not be changed: other calls share it."""
        route, path, fields = call.route, call.request.path, call.asked.fields
        in_body: Said = ()
        if not _IN_BODY.isdisjoint(fields):
            in_body = tuple([(name, bytes(fields[name])) for name in fields if name in _IN_BODY])
        stated = self._of(call.request, in_body)
        keyed = path.find(CREDENTIAL_IN_QUERY) >= 0 and not stated.credential
        if not (keyed or route.run_id or route.agent or route.agent_version):
            return stated
        stated = structs.replace(stated, facts=stated.facts.copy())
        if keyed:
            stated.credential = _query_key(path)
            stated.scope = self._scope(stated)
        if route.run_id:
            stated.offer("run", URL, "url", route.run_id)
        if route.agent:
            stated.offer("agent", URL, "url", route.agent)
        if route.agent_version:
            stated.offer("agent_version", URL, "url", route.agent_version)
        stated.settle()
        return stated

    def _of(self, request: Request, in_body: Said) -> Stated:
        """What headers and fields of the body say. For equal heads the headers are looked at once by one reader."""
        known: tuple[StatedReader, Said, dict[Said, Stated]] | None = request.facts.get("stated")
        if known is None or known[0] is not self:
            known = request.facts["stated"] = (self, self._headers.telling(request.headers), {})
        _, in_headers, read = known
        stated = read.get(in_body)
        if stated is None:
            said = in_headers + in_body
            stated = self._read.get(said) or self._read_anew(said)
            if said in self._read and len(read) < BODIES_KEPT:
                read[in_body] = stated
        return stated

    def _read_anew(self, said: Said) -> Stated:
        stated = Stated(self._tenant)
        headers = [(name, value) for name, value in said if isinstance(name, bytes)]
        fields = {name: value for name, value in said if isinstance(name, str)}
        self._headers.read(stated, headers)
        if self._tenant_header:
            for name, value in headers:
                if name.lower() == self._tenant_header:
                    stated.tenant = clean_name(value.decode("utf-8", "replace")) or self._tenant
        for field in _FIELDS.keys() & fields.keys():
            _FIELDS[field](stated, fields[field])
        if is_codex(stated.user_agent, stated.codex.get("originator", "")):
            _read_codex(stated)
        if CACHE_KEY in fields and states_cache_key(stated.user_agent):
            stated.offer("run", BODY + 9, "body", json_string(fields[CACHE_KEY]))
        stated.scope = self._scope(stated)
        stated.settle()
        if sum([len(value) for _, value in said]) <= SAID_KEPT:
            if len(self._read) >= SETS_KEPT:
                self._read.clear()
            self._read[said] = stated
        return stated

    def _scope(self, stated: Stated) -> bytes:
        text = b"%d:%b%b" % (len(stated.tenant), stated.tenant.encode(), stated.credential)
        return blake2b(text, key=self._secret, digest_size=16).digest()


def _query_key(path: bytes) -> bytes:
    """The key that Gemini's clients may put into the query."""
    for part in path.partition(b"?")[2].split(b"&"):
        if part.startswith(CREDENTIAL_IN_QUERY):
            return part
    return b""


def _read_codex(stated: Stated) -> None:
    """Codex's unprefixed headers: the session is the run, the thread one agent of it."""
    codex = stated.codex
    stated.offer("run", VENDOR + 5, "vendor", codex.get("session-id", ""))
    stated.offer("thread", VENDOR + 5, "vendor", codex.get("thread-id", ""))
    path = codex.get("agent-name", "").strip("/")
    if path.startswith("root/"):
        stated.offer("agent_type", VENDOR + 5, "vendor", path.removeprefix("root/"))


FieldReader = Callable[[Stated, Any], None]


def _metadata(stated: Stated, raw: Any) -> None:
    offer_metadata(stated, raw, BODY + 1, "body")


def _id(key: str, rank: int) -> FieldReader:
    def read(stated: Stated, raw: Any) -> None:
        stated.offer(key, BODY + rank, "body", json_string(raw))

    return read


def _conversation(stated: Stated, raw: Any) -> None:
    """OpenAI's `conversation`: an id, or an object with one."""
    text = json_string(raw) or json_string(json_object(raw).get("id", b""))
    stated.offer("run", BODY, "body", text)


_FIELDS: Mapping[str, FieldReader] = {
    "conversation": _conversation,
    "metadata": _metadata,
    "litellm_metadata": _metadata,
    "requestMetadata": _metadata,  # Bedrock
    "client_metadata": _metadata,  # Codex
    "labels": _metadata,  # Vertex
    "litellm_session_id": _id("run", 7),
    "session_id": _id("run", 7),  # OpenRouter
    "conversation_id": _id("run", 7),
    "thread_id": _id("run", 8),
    "litellm_trace_id": _id("trace_run", 7),
    "user": _id("end_user", 8),
    "safety_identifier": _id("end_user", 7),
}
_IN_BODY = frozenset((*_FIELDS, CACHE_KEY))
