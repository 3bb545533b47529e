"""What a client says about itself, fact by fact: values cleaned, and for each fact the best-ranked statement kept.

Rules
1. For each fact the lowest rank counts: URL, our headers, configured headers, W3C baggage, headers of known programs,
   headers that look like a session id, body fields.
2. Values are foreign text: ids keep `[A-Za-z0-9._:@/-]` and at most 128 characters (a longer one is no id), names 63;
   other characters are replaced. They name things and decide nothing else.
3. `user` and its kin name an end user, never a run. A trace id may name a run, but no conversation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

ID_LIMIT = 128
NAME_LIMIT = 63
JSON_LIMIT = 16_384

URL, OWN, CONFIGURED, BAGGAGE, VENDOR, GENERIC, BODY = 0, 10, 20, 30, 40, 60, 70
_ID = re.compile(r"[A-Za-z0-9._:@/-]{1,128}")
_NOT_ID = re.compile(r"[^A-Za-z0-9._:@/-]")
_WORD = re.compile(r"[A-Za-z0-9]")
_CLAUDE_USER = re.compile(r"user_([0-9a-f]*)_account_([0-9a-f-]*)_session_([0-9a-f-]{36})")


class Fact(Struct, frozen=True, gc=False):
    rank: int
    source: str
    value: str


class Stated(Struct):
    """What was said; shared by calls that say the same. Sub-agents are told by the marks of programs that have them:
    our own x-tollgate-agent-id alone is no mark.

    Keys of `facts`: run, trace_run (a run that is no conversation), parent_run, agent, agent_type, agent_id (one
    instance of a sub-agent), thread (one line of a run, sub-agent or not), parent_agent_id, agent_version,
    parent_agent, step, request_class, end_user.
    """

    tenant: str = ""
    facts: dict[str, Fact] = {}
    credential: bytes = b""  # never leaves the process
    scope: bytes = b""  # keyed hash of tenant and credential: the prefix of all that is remembered of the call
    user_agent: str = ""
    retry: int = -1  # x-stainless-retry-count; -1: the client does not count its retries
    idempotency_key: str = ""
    durations: dict[str, list[int]] = {}  # tool name -> milliseconds, in the order reported
    codex: dict[str, str] = {}  # unprefixed headers, believed only when the client is Codex
    instance: str = ""  # what tells the threads of its run apart
    subagent: bool = False
    agent_version: str = ""
    parent_agent: str = ""
    request_class: str = ""
    end_user: str = ""
    step: int = -1  # -1: the client does not count them

    def offer(self, key: str, rank: int, source: str, text: str) -> None:
        """Take a statement unless a better one is there."""
        known = self.facts.get(key)
        if known is not None and known.rank <= rank:
            return
        value = clean_name(text) if key in _NAMES else clean_id(text)
        if value:
            self.facts[key] = Fact(rank, source, value)

    def value(self, key: str) -> str:
        fact = self.facts.get(key)
        return fact.value if fact is not None else ""

    def settle(self) -> None:
        """Conclude what follows from the facts, once all are there."""
        self.instance = self._instance()
        facts = self.facts
        self.subagent = not facts.keys().isdisjoint(("agent_type", "parent_agent_id", "parent_run")) or (
            "agent_id" in facts and facts["agent_id"].source == "vendor"
        )
        self.agent_version, self.parent_agent = self.value("agent_version"), self.value("parent_agent")
        self.request_class, self.end_user = self.value("request_class"), self.value("end_user")
        step = self.value("step")
        self.step = int(step) if step.isdigit() and len(step) < 7 else -1

    def _instance(self) -> str:
        """The instance where the client states one, else the agent's stated name."""
        for key in ("agent_id", "thread", "agent"):
            if key in self.facts:
                return self.facts[key].value
        return self.value("run") if "parent_run" in self.facts else ""


_NAMES = frozenset(("agent", "agent_type", "agent_version", "parent_agent", "request_class"))


def clean_id(text: str) -> str:
    """A usable id, or "" for what is none."""
    text = text.strip()
    if _ID.fullmatch(text) is not None:
        return text
    if len(text) > ID_LIMIT or not text.isprintable() or _WORD.search(text) is None:
        return ""
    return _NOT_ID.sub("_", text)


def clean_name(text: str) -> str:
    """A name fit for a metric label, or ""."""
    text = text.strip()
    if _WORD.search(text) is None:
        return ""
    return _NOT_ID.sub("-", text[:NAME_LIMIT])


# Keys of metadata objects, lower case without separators: fact, and its rank among the others of the object.
_METADATA: Mapping[str, tuple[str, int]] = {
    "runid": ("run", 0),
    "conversationid": ("run", 1),
    "sessionid": ("run", 2),
    "threadid": ("run", 3),
    "chatid": ("run", 4),
    "traceid": ("trace_run", 5),
    "agentname": ("agent", 0),
    "agent": ("agent", 1),
    "agentid": ("agent", 2),
    "agentversion": ("agent_version", 0),
    "parentagent": ("parent_agent", 0),
    "enduser": ("end_user", 0),
    "userid": ("end_user", 1),
    "user": ("end_user", 2),
}
_SEPARATORS = str.maketrans("", "", "_-.")
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])
_strings = msgspec.json.Decoder(str)


def json_object(raw: Any) -> dict[str, msgspec.Raw]:
    """The members of a JSON object (bytes or msgspec.Raw), or nothing."""
    text = bytes(raw)
    if len(text) > JSON_LIMIT:
        return {}
    try:
        return _objects.decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return {}


def json_string(raw: Any) -> str:
    """A JSON string (bytes or msgspec.Raw), or "" for anything else."""
    text = bytes(raw)
    if len(text) > JSON_LIMIT or not text.startswith(b'"'):
        return ""
    try:
        return _strings.decode(text)
    except (msgspec.MsgspecError, ValueError):
        return ""


def offer_metadata(stated: Stated, raw: Any, rank: int, source: str) -> None:
    """Take what a metadata object says under one of the usual keys, however they are written."""
    for key, value in json_object(raw).items():
        offer_text(stated, key, json_string(value), rank, source)


def offer_text(stated: Stated, key: str, text: str, rank: int, source: str) -> None:
    """One member of a metadata object, or what stands for one."""
    rule = _METADATA.get(key.lower().translate(_SEPARATORS))
    if rule is not None and not (rule[0] == "end_user" and _offer_claude_user(stated, text)):
        stated.offer(rule[0], rank + rule[1], source, text)


def _offer_claude_user(stated: Stated, text: str) -> bool:
    """Claude Code puts its session into `metadata.user_id`: as a JSON string, before as `user_.._session_<uuid>`."""
    if text.startswith("{"):
        members = json_object(text.encode("utf-8", "replace"))
        session, user = (json_string(members.get(key, b"")) for key in ("session_id", "account_uuid"))
    elif old := _CLAUDE_USER.fullmatch(text):
        user, session = old[2], old[3]
    else:
        return False
    stated.offer("run", BODY, "body", session)
    stated.offer("end_user", BODY, "body", user)
    return True
