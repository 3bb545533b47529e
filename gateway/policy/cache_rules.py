"""What the exact cache may answer and what it may keep: by the configuration, the request, and how the answer ended.

Rules
1. Nothing is cached that no rule enables. The first rule whose patterns all match decides for a call.
2. Only operations whose answer is a function of the request are asked for: not what runs in the background, goes on
   from what the provider remembers, or lets the provider run tools (unless `tools`).
3. A client may ask for less than is configured, never for more (RFC 9111 5.2.1: no-cache, no-store, max-age,
   only-if-cached; `x-tollgate-cache: bypass | refresh | only` says the same).
4. Only what came whole is kept: status 200, ended by its provider in its own time, nothing of it changed, cut, refused
   or filtered, with something in it. Whatever is not known to be such an end is none.
"""

from __future__ import annotations

from collections.abc import Collection

from msgspec import Raw, Struct

from gateway.call import Answer, Asked, Call, Request
from gateway.config.schema import Cache, CacheRule, ExactCache, Sampled
from gateway.policy.scoped_rules import ScopedRules
from gateway.ports import Dialect

EMBEDDINGS = "embeddings"
OPERATIONS = frozenset(("chat", "text_completion", "generate_content", EMBEDDINGS))
REMEMBERS = frozenset(("previous_response_id", "conversation", "conversation_id", "cachedContent"))
"""Fields by which an answer hangs on what the provider keeps, and may change."""
WORLD = frozenset(
    (
        *("web_search_options", "mcp_servers", "container"),  # OpenAI, Anthropic
        *("search_parameters", "plugins", "enable_search"),  # of servers that imitate
        "connectors",  # Cohere
    )
)
"""Fields by which an answer hangs on how the world is, though no tool is declared."""
ENDS = frozenset(
    (
        *("stop", "end_turn", "stop_sequence", "completed", "STOP"),
        *("tool_calls", "function_call", "tool_use"),  # whether these may be kept says `tools`
        *("COMPLETE", "STOP_SEQUENCE", "TOOL_CALL"),
        *("eos", "eos_token", "stop_token"),  # of servers that imitate
    )
)
"""Finish reasons of an answer that said all it had to say."""
BROKEN = frozenset(("failed", "incomplete", "changed"))  # of `unkeepable`: for nobody else, not even while it comes
CHANGED = frozenset(("clamped", "tapered", "stopped"))  # by a budget: not what was asked for
CONTROL = b"cache-control"
HEADER = b"x-tollgate-cache"
TAGS = b"x-tollgate-cache-tags"
MOST_TAGS, TAG_CHARS = 16, 64


class Terms(Struct, frozen=True, gc=False):
    """What holds for a call."""

    enabled: bool
    ttl: int  # ns
    tools: bool
    sampled: Sampled


class Wish(Struct, frozen=True, gc=False):
    """What the client asks of the cache."""

    look: bool = True
    store: bool = True
    only: bool = False  # nothing but the cache
    oldest: int = -1  # ns; -1: of any age
    equal: bool = False  # no answer to a question that is only similar


PLAIN = Wish()
REFRESH = Wish(look=False)


class CacheRules:
    """The rules of one configuration."""

    def __init__(self, cache: Cache, identity_headers: Collection[str] = ()) -> None:
        self._exact: ExactCache = cache.exact
        self.version = cache.version
        names = (*cache.ignore_headers, *identity_headers)
        self.ignored = frozenset(name.lower().encode() for name in names)
        self.jitter = cache.exact.jitter
        self._scoped = ScopedRules(cache.exact.rules, CacheRule(enabled=cache.exact.enabled), self._terms)

    def terms(self, call: Call) -> Terms:
        return self._scoped.of(call)

    def _terms(self, rule: CacheRule) -> Terms:
        exact = self._exact
        return Terms(
            rule.enabled,
            int((rule.ttl or exact.ttl) * 1e9),
            exact.tools if rule.tools is None else rule.tools,
            rule.sampled or exact.sampled,
        )


def unfit(call: Call, terms: Terms, dialect: Dialect) -> str:
    """Why this call is not one for the cache; "" where it is. In one word, for records and metrics."""
    asked, route = call.asked, call.route
    if route.operation not in OPERATIONS or call.websocket or call.request.method != b"POST" or not asked.fields:
        return "operation"
    fields = asked.fields
    if not REMEMBERS.isdisjoint(fields) or is_object(fields.get("prompt")):
        return "conversation"
    if fields.get("background") is not None and bytes(fields["background"]) == b"true":
        return "background"
    if terms.sampled != "all" and route.operation != EMBEDDINGS and is_sampled(asked, terms.sampled):
        return "sampled"
    if terms.tools:
        return ""
    runs = not WORLD.isdisjoint(fields) or (asked.tools and dialect.bounds(route, asked).server_tools)
    return "server_tools" if runs else ""


def is_object(raw: Raw | None) -> bool:
    """A stored prompt, which somebody may change, in place of a text."""
    return raw is not None and bytes(raw)[:1] == b"{"


def is_sampled(asked: Asked, sampled: Sampled) -> bool:
    """Does the provider roll dice for this answer, as far as the request says?"""
    params = asked.params
    temperature = params.get("temperature")
    if temperature == 0 or "seed" in params:
        return False
    return temperature is not None or sampled == "none"


def wish_of(request: Request) -> Wish:
    """What the headers of a request ask for. What is not understood asks for nothing."""
    control, own = items_of(request, CONTROL), request.names.get(HEADER)
    if not control and own is None:
        return PLAIN
    look, store, only, oldest = True, True, False, -1
    for word in control:
        name, _, value = word.lower().partition(b"=")
        if name == b"no-cache":
            look = False
        elif name == b"no-store":
            look = store = False
        elif name == b"only-if-cached":
            only = True
        elif name == b"max-age" and value.strip(b'"').isdigit():
            oldest = int(value.strip(b'"')[:9]) * 10**9
    mode = (own or b"").strip().lower()
    if mode in (b"bypass", b"off"):
        look = store = False
    elif mode == b"refresh":
        look = False
    return Wish(look and oldest != 0, store, only or mode == b"only", oldest, mode == b"exact")


def items_of(request: Request, name: bytes) -> list[bytes]:
    """What a header lists, on however many lines (RFC 9110 5.3)."""
    if name not in request.names:
        return []
    lines = [value for header, value in request.headers if header.lower() == name]
    return [word.strip() for word in b",".join(lines).split(b",")]


def tags_of(request: Request) -> tuple[str, ...]:
    """What the client calls this question by, so that answers can be forgotten together."""
    found = [tag.decode("latin-1")[:TAG_CHARS] for tag in items_of(request, TAGS)]
    return tuple([tag for tag in found if tag and tag.isprintable()][:MOST_TAGS])


def fits(answer: Answer, age: int, terms: Terms, wish: Wish) -> bool:
    """May a stored answer be given to a call with these terms? It may have been kept under others. `age`: ns."""
    return (not answer.tool_uses or terms.tools) and age < terms.ttl and (wish.oldest < 0 or age <= wish.oldest)


def lifetime(terms: Terms, jitter: float, key: bytes) -> int:
    """ns that an answer stays good: shorter by up to a share, by its key, so that not all end at once."""
    share = int.from_bytes(key[-4:], "little") / 2**32
    return max(1, int(terms.ttl * (1 - jitter * share)))


def unkeepable(call: Call, answer: Answer, terms: Terms, *, carried: bool = False) -> str:
    """Why an answer is not kept; "" where it may be. Its call has ended and is accounted for.

    `carried`: its client left, and it was read to its end for others.
    """
    ended = carried or (call.fault is None and call.status == 200)
    if not ended or not call.attempts or call.attempts[-1].status != 200:
        return "failed"
    if answer.error_type or answer.background or not answer.complete:
        return "incomplete"
    if call.notes.get("budget") in CHANGED:
        return "changed"
    if call.route.operation != EMBEDDINGS:
        if not answer.finish_reasons or not ENDS.issuperset(answer.finish_reasons):
            return "unfinished"
        if answer.refused:
            return "refused"
        if not answer.output_chars and not answer.tool_uses:
            return "empty"
    if answer.tool_uses and not terms.tools:
        return "tools"
    return ""
