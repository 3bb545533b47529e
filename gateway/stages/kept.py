"""What is remembered of answers that their providers keep, so that a request that only refers to them has a known size:
the tokens of a response or message with all before it, and of the response that an item is part of.

Another model may count the same pictures as many times as many tokens: where it does, all of a history counts so often,
but not beyond what the model reads.
"""

from __future__ import annotations

import math
from functools import lru_cache

from gateway.call import Call
from gateway.policy.ceiling import model_of
from gateway.policy.media_tokens import UNSEEN_IMAGE, image_tokens
from gateway.policy.model_limits import most
from gateway.policy.token_bound import references
from gateway.ports import Gateway, Links

CONTINUED = frozenset(("input", "thread"))  # fields by which requests are known whose answers can be continued
REFERS = frozenset(("previous_response_id", "conversation", "conversation_id", "cachedContent", "thread"))
ITEMS_OF = "openai_responses"  # the dialect in which requests refer to single items


def remember(call: Call, links: Links) -> None:
    answer, fields = call.answer, call.asked.fields
    if answer is None or answer.usage is None or not answer.response_id or CONTINUED.isdisjoint(fields):
        return
    tenant, usage = call.who.tenant, answer.usage
    total = usage.input_tokens + usage.output_tokens
    model = model_of(call).encode("utf-8", "replace")[:100]
    links.put(history_key(tenant, answer.response_id), total.to_bytes(8, "little") + model)
    of = usage.output_tokens.to_bytes(8, "little") + answer.response_id.encode()[:100]
    for item in answer.items:
        links.put(item_key(tenant, item), of)


def history_tokens(call: Call, gw: Gateway, links: Links) -> int | None:
    """Of the response or conversation that this call goes on from; None where that is not known, or there is none."""
    if REFERS.isdisjoint(call.asked.fields):
        return None
    history = gw.dialects[call.route.dialect].bounds(call.route, call.asked).history
    value = links.get(history_key(call.who.tenant, history)) if history else None
    if not value:
        return None
    tokens, model = int.from_bytes(value[:8], "little"), model_of(call)
    times = finer(value[8:].decode("utf-8", "replace"), model)
    limits = most(model) if times > 1 else None
    return tokens * times if limits is None else min(tokens * times, max(tokens, limits.context))


@lru_cache(256)
def finer(before: str, model: str) -> int:
    """How many times as many tokens this model may make of a picture as the one before did."""
    seen, now = (image_tokens(UNSEEN_IMAGE, name) for name in (before, model))
    return max(1, math.ceil(now / seen))


def item_tokens(call: Call, links: Links) -> tuple[int, int]:
    """How many of the items that this call refers to are known, and their tokens; those of one response count once."""
    if call.route.dialect != ITEMS_OF:
        return 0, 0
    values = [links.get(item_key(call.who.tenant, item)) for item in references(call.asked.messages)]
    known = [value for value in values if value]
    responses = {value[8:]: int.from_bytes(value[:8], "little") for value in known}
    return len(known), sum(responses.values())


def history_key(tenant: str, id: str) -> bytes:
    return b"history:%d:%b%b" % (len(tenant), tenant.encode(), id.encode())


def item_key(tenant: str, id: str) -> bytes:
    return b"item:%d:%b%b" % (len(tenant), tenant.encode(), id.encode())
