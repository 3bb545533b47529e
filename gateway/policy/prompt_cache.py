"""Is a conversation read from its provider's prompt cache, and if not, why not and at what cost? Pure.

Theory of operation
* A call could have hit where the call before it in its conversation left something in the cache: what that one read and
  wrote, on APIs that cache what the client marks; its input in whole steps of 128 tokens where caching is automatic.
  So many tokens are `readable`. What the provider says it read is compared with that.
* As long as it read them all, the prefix is proven to be stable. Nothing is compared then: the chain only grows by
  the new messages. Only where it read less is the whole request gone through, for the first place that changed.
* What is lost is the difference between two prices of the same call: as billed, and with the tokens that were not read
  taken from what was written (first) or read afresh, and billed as read.
* A conversation is a run, an agent, and the first message. Where the first message is new, a message that was the last
  of an earlier call leads back to its conversation: so a changed first message and a window that slides are seen.

Rules
1. No fact, no finding: calls whose usage the provider did not state are not looked at, and change nothing.
2. Of two causes the one that stands further in front counts; but where nothing was read after more than the time to
   live, a stable prefix would not have been read either.
3. Where reading from the cache is not cheaper, nothing can be lost by missing it.
4. State lives in ports.Links, values of at most 200 bytes; it may be lost at any time, then a conversation begins anew.

See docs/prompt-cache.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any
from zlib import crc32

from msgspec import Struct, structs

from gateway.call import Answer, Asked, CacheHealth, Call, Usage, UsageSource
from gateway.policy.prompt_cache_chain import (
    HEAD,
    INLINE,
    MESSAGES,
    MOST,
    PARTS,
    VERSION,
    State,
    chain,
    chain_like,
    is_system,
    numbers,
    place,
    root_of,
    state_of,
)
from gateway.policy.prompt_cache_memory import Key, Prefixes
from gateway.policy.prompt_cache_words import hint
from gateway.ports import Links, Prices

MINIMUM = 1024  # tokens of a prompt that providers begin to cache
LEAST_BYTES = 2 * MINIMUM  # of a body that may hold so many
UNMARKED_MINIMUM = 4096  # what every model of the APIs with marks would cache
STEP = 128  # tokens by which automatic caches grow
MINUTES, HOUR, DAY = 5, 60, 1440  # to live
HOUR_MS = 3_600_000
NS_PER_MS = 1_000_000
SEEN = 1  # flag: something was read from the cache, or written
MOST_STREAK = 255
SCOPES_KEPT = 4096
CHOICE = ("tool_choice", "toolConfig")
THINKING = ("thinking", "reasoning", "reasoning_effort", "output_config")
ASKED = frozenset((*CHOICE, *THINKING))
RETENTION = "prompt_cache_retention"
STATED = frozenset((UsageSource.PROVIDER, UsageSource.INJECTED))
MARKED_NOTE = "cache_marks"  # in Call.notes: breakpoints that the gateway set
_MARK = b'"cache_control"'
_SOURCE = b'"source"'  # of an image or a document, of which the body may hold no more than a link
Divergence = tuple[str, int, str]  # part, index, cause
NOWHERE: Divergence = ("", -1, "")


class Case(Struct, gc=False):
    """A call, and the one before it in its conversation."""

    call: Call
    usage: Usage
    before: State
    here: State
    key: Key  # under which the one before was remembered
    idle: int  # ms from its answer to this call
    expired: bool  # that is more than the time to live


class PromptCacheHealth:
    """`marked`: the dialects whose providers cache only what the client marks."""

    def __init__(self, links: Links, prices: Prices, marked: Collection[str]) -> None:
        self._links = links
        self._prefixes = Prefixes(links)
        self._prices = prices
        self._marked = frozenset(marked)

    def learn(self, call: Call) -> None:
        """Behind the answer, when its usage is known: judge the call (`call.prompt_cache`), remember its prefix."""
        answer, who = call.answer, call.who
        if answer is None or (usage := answer.usage) is None or usage.input_tokens < MINIMUM:
            return
        messages = call.asked.messages
        if not messages or not who.run_id or not call.attempts or call.websocket or answer.usage_source not in STATED:
            return
        scope, root = _scope(who.tenant, who.run_id, who.agent), root_of(messages).to_bytes(4, "little")
        name = scope + b"H" + root
        value = self._links.get(name)
        kept = self._gone_on(value, call, usage) if value is not None else None
        if kept is None:
            here = self._next(state_of(value), call, usage, (scope, root))
            kept = here.pack() if here is not None else None
        if kept is not None:
            self._links.put(name, kept)

    def _gone_on(self, value: bytes, call: Call, usage: Usage) -> bytes | None:
        """What is kept behind a call that adds a few messages to those before, and was read as far as it could: as
        nearly all are, so that `_next` would find the same at three times the cost. None: it is to be looked at."""
        asked, fields, messages = call.asked, call.asked.fields, call.asked.messages
        if len(value) < HEAD.size or not ASKED.isdisjoint(fields) or RETENTION in fields:
            return None
        version, at, ttl, _, _, _, extent, _, front, count, tools, system, _, _, flags, _ = HEAD.unpack_from(value)
        now, new = call.started_at // NS_PER_MS, len(messages)
        if not at <= now <= at + ttl * 60_000 or not count < new <= INLINE or new.bit_length() != count.bit_length():
            return None
        total, read, write = usage.input_tokens, usage.cache_read_tokens, usage.cache_write_tokens
        readable = extent if extent < total else total
        marked = call.route.dialect in self._marked
        if readable < MINIMUM or readable - read > (0 if marked else STEP) or usage.detail:
            return None
        if front != _front(asked) or version != VERSION or ttl == HOUR:
            return None
        call.prompt_cache = CacheHealth(readable, read, total)
        began = call.upstream_first_byte or call.ended or call.began
        at = (call.started_at + began - call.began if began > call.began else call.started_at) // NS_PER_MS
        model = _named(call.route.upstream, call.model_sent or asked.model)
        extent = read + write if write or marked else total // STEP * STEP
        flags |= SEEN if read or write else 0
        head = HEAD.pack(
            VERSION, at, MINUTES, 0, 0, model, extent, total, front, new, tools, system, 0, 0, flags, 0
        )  # fmt: skip
        return head + value[HEAD.size :] + chain(messages[count:])

    def _next(self, before: State | None, call: Call, usage: Usage, key: Key) -> State | None:
        """The state behind this call; None where it stays as it is."""
        here = self._seen(call, usage)
        known = key
        if before is None:
            before, known = self._prefixes.elsewhere(call.asked.messages, key)
        idle = call.started_at // NS_PER_MS - before.at if before is not None else 0
        if before is None or idle < -HOUR_MS:
            self._prefixes.remember(here, call.asked, key)
            return here
        if idle < 0:
            return None  # both were under way at once: neither could read what the other wrote
        here.flags |= before.flags
        if before.ttl == HOUR and not usage.cache_write_tokens:
            here.ttl = HOUR  # reading keeps alive what was written for an hour
        expired = idle > before.ttl * 60_000
        readable = min(before.extent, usage.input_tokens)
        missed = readable - usage.cache_read_tokens
        if readable >= MINIMUM and missed <= (
            0 if self._is_marked(call) else STEP
        ):  # a step may end behind what is shared
            health: CacheHealth | None = CacheHealth(readable, usage.cache_read_tokens, usage.input_tokens)
        else:
            health = self._judge(Case(call, usage, before, here, known, idle, expired), readable)
        compared = health is not None and health.lost_tokens and health.cause != "unmarked"
        moved = here.messages < before.messages or here.front != before.front
        if compared or expired or moved or known != key:
            self._prefixes.remember(here, call.asked, key)
        else:
            self._prefixes.grow(before, here, call.asked.messages, key)
        call.prompt_cache = health
        return here

    def _seen(self, call: Call, usage: Usage) -> State:
        """What there is to say of the call by itself; nothing of its text is read yet."""
        asked = call.asked
        fields, total = asked.fields, usage.input_tokens
        read, write = usage.cache_read_tokens, usage.cache_write_tokens
        automatic = not write and call.route.dialect not in self._marked
        choice = thinking = 0
        if not ASKED.isdisjoint(fields):
            choice, thinking = _of(fields, CHOICE), _of(fields, THINKING)
        took = (call.upstream_first_byte or call.ended or call.began) - call.began
        ttl = HOUR if usage.detail and usage.detail.get("cache_write_1h_tokens") else MINUTES
        if RETENTION in fields and bytes(fields[RETENTION]) == b'"24h"':
            ttl = DAY
        count = len(asked.messages)
        return State(
            (call.started_at + took if took > 0 else call.started_at) // NS_PER_MS,
            ttl,
            choice,
            thinking,
            _named(call.route.upstream, call.model_sent or asked.model),
            total // STEP * STEP if automatic else read + write,
            total,
            _front(asked),
            count if count < MOST else MOST,
            flags=SEEN if read or write else 0,
        )

    # -- what is wrong -------------------------------------------------------------------------------------------

    def _judge(self, case: Case, readable: int) -> CacheHealth | None:
        """Of a call that did not read all it could have; None where there was nothing to read."""
        usage, before, here = case.usage, case.before, case.here
        if readable < MINIMUM:
            return self._unmarked(case)
        read, total = usage.cache_read_tokens, usage.input_tokens
        missed = readable - read
        lost = self._lost(case.call, usage, _as_read(usage, missed))
        part, index, cause = self._divergence(case)
        if not part and not lost and not (lost is None and here.flags & SEEN):
            return None
        if part:
            number, at = PARTS.index(part), min(max(index, 0), MOST)
            again = before.streak and (before.part, before.index) == (number, at)
            here.part, here.index, here.streak = number, at, min(before.streak + 1, MOST_STREAK) if again else 1
        text = hint(part, index, cause, streak=here.streak, idle_ms=case.idle, ttl_minutes=before.ttl)
        return CacheHealth(readable, read, total, missed, lost, cause, part, index, text)

    def _is_marked(self, call: Call) -> bool:
        return call.route.dialect in self._marked

    def _unmarked(self, case: Case) -> CacheHealth | None:
        """A long conversation none of which is marked to be cached, on an API where it would have to be."""
        call, usage = case.call, case.usage
        readable = min(case.before.input, usage.input_tokens)
        if (
            not self._is_marked(call)
            or case.here.flags & SEEN
            or readable < UNMARKED_MINIMUM
            or _MARK in call.request.body
            or b"content-encoding" in call.request.names
            or MARKED_NOTE in call.notes
        ):
            return None
        fresh = structs.replace(usage, detail={})
        cached = structs.replace(fresh, cache_read_tokens=readable, cache_write_tokens=usage.input_tokens - readable)
        lost = self._lost(call, fresh, cached)
        if lost == 0:
            return None
        text = hint("", -1, "unmarked")
        return CacheHealth(readable, 0, usage.input_tokens, readable, lost, "unmarked", "", -1, text)

    def _divergence(self, case: Case) -> Divergence:
        before, here = case.before, case.here
        if case.expired and not case.usage.cache_read_tokens:
            return "", -1, "ttl"
        if before.model != here.model:
            return "model", -1, "model"
        otherwise = NOWHERE
        if before.choice != here.choice:
            otherwise = ("tool_choice", -1, "tool_choice")
        elif before.thinking != here.thinking:
            otherwise = ("thinking", -1, "thinking")
        found = self._in_blocks(case)
        if not found[0] and self._is_marked(case.call):  # there they stand in front of the messages
            found = otherwise
        if not found[0]:
            found = self._in_messages(case)
        if not found[0]:
            found = otherwise
        if not found[0]:
            return "", -1, "ttl" if case.expired else "provider"
        return found

    def _in_blocks(self, case: Case) -> Divergence:
        """The first tool definition or system block that changed."""
        before, here = case.before, case.here
        stored = self._prefixes.blocks(case.key)
        if stored is None and before.tools + before.system:
            return NOWHERE  # forgotten
        old = numbers(stored or b"")
        new = numbers(self._prefixes.note_blocks(here, case.call.asked))
        for part, start, stop, from_, upto in (
            ("tool", 0, before.tools, 0, here.tools),
            ("system", before.tools, before.tools + before.system, here.tools, None),
        ):
            found = place(old[start:stop], new[from_:upto], growing=False)
            if found is not None:
                return part, *found
        return NOWHERE

    def _in_messages(self, case: Case) -> Divergence:
        messages, before = case.call.asked.messages, case.before
        old = numbers(before.chain + self._prefixes.pages(before, case.key))
        found = place(old, chain_like(old, messages[:MESSAGES]), growing=True)
        if found is None:
            return NOWHERE
        index, cause = found
        if _tokens_before(case, index) > before.extent * 1.25 + 512:
            return NOWHERE  # behind all that was cached
        system = index < len(messages) and is_system(bytes(messages[index])[:64])
        return "system" if system else "message", index, cause

    def _lost(self, call: Call, billed: Usage, cached: Usage) -> int | None:
        """Pico-USD between what was billed and what a stable prefix would have cost; None where a price is unknown."""
        answer = call.answer or Answer()
        provider = call.attempts[-1].target.provider if call.attempts else ""
        at = call.started_at / 1e9
        for model in (answer.model, call.model_sent or call.asked.model):
            if model:
                real = self._prices.price(provider, model, billed, at, answer.pricing).total
                best = self._prices.price(provider, model, cached, at, answer.pricing).total
                if real is not None and best is not None:
                    return max(0, real - best)
        return None


def is_worth_marks(body: bytes) -> bool:
    """May a provider find so much in it that it caches anything?"""
    return len(body) >= LEAST_BYTES or _SOURCE in body


def _as_read(usage: Usage, missed: int) -> Usage:
    """The usage had these tokens been read: taken from what was written, the longest-lived
    first, then from the rest."""
    written = min(missed, usage.cache_write_tokens)
    detail = dict(usage.detail)
    left = written
    for name in ("cache_write_1h_tokens", "cache_write_5m_tokens"):
        if name in detail:
            taken = min(left, detail[name])
            detail[name] -= taken
            left -= int(taken)
    return structs.replace(
        usage,
        cache_read_tokens=usage.cache_read_tokens + missed,
        cache_write_tokens=usage.cache_write_tokens - written,
        detail={name: number for name, number in detail.items() if number},
    )


def _tokens_before(case: Case, index: int) -> float:
    """About how many tokens stand in front of a message, by bytes."""
    asked = case.call.asked
    sizes = [len(raw) for raw in asked.messages]
    front = len(asked.tools) + len(asked.system)
    return case.usage.input_tokens * (front + sum(sizes[:index])) / max(1, front + sum(sizes))


def _front(asked: Asked) -> int:
    return (len(asked.tools) * 31 + len(asked.system)) & 0xFFFF_FFFF


def _of(fields: Mapping[str, Any], names: Sequence[str]) -> int:
    """16 bits over these fields."""
    total = 0
    for name in names:
        if name in fields:
            total = crc32(fields[name], total + 1)
    return (total ^ total >> 16) & 0xFFFF


@lru_cache(SCOPES_KEPT)
def _named(upstream: str, model: str) -> int:
    return crc32(f"{upstream}\0{model}".encode("utf-8", "replace"))


@lru_cache(SCOPES_KEPT)
def _scope(tenant: str, run_id: str, agent: str) -> bytes:
    """11 bytes: with a letter and a root they make a key of 16."""
    text = f"{len(tenant)}:{tenant}{len(run_id)}:{run_id}{agent}"
    return sha256(b"prompt cache:" + text.encode("utf-8", "replace")).digest()[:11]
