"""The rest of the fake Responses API: what is stored, and what only counts or compacts."""

from __future__ import annotations

import random
from typing import Any

from gateway.testing.fake_errors import Facts, refusal
from gateway.testing.fake_openai_chat import check, headers
from gateway.testing.fake_openai_responses import ask_of, frames, history_of, usage
from gateway.testing.fake_script import Reply
from gateway.testing.fake_tokens import count
from gateway.testing.fake_world import Ids, Incoming, Stored, Wire, World, dump


def _json(body: Any, ids: Ids) -> Wire:
    return Wire(200, [("content-type", "application/json"), *headers(ids)], dump(body))


def _missing(response_id: str) -> Wire:
    detail = f"Response with id '{response_id}' not found."
    return refusal("openai", "missing", Facts(detail=detail), Ids(random.Random(response_id)))


def _settled(world: World, stored: Stored) -> dict[str, Any]:
    """The response as it stands now: a background one goes on while nobody looks."""
    if stored.final is None:
        return stored.response
    if world.clock() >= stored.due:
        stored.response, stored.final = stored.final, None
    else:
        stored.response = {**stored.response, "status": "in_progress"}
    return stored.response


def retrieve(world: World, request: Incoming, response_id: str) -> Wire:
    stored = world.stored.get(response_id)
    if stored is None:
        return _missing(response_id)
    ids = Ids(random.Random(response_id))
    if request.query.get("stream") == "true":
        after = int(request.query.get("starting_after", -1))
        events = [event for event in stored.events if event[1]["sequence_number"] > after]
        return Wire(200, headers(ids), frames=frames(events))
    return _json(_settled(world, stored), ids)


def delete(world: World, _request: Incoming, response_id: str) -> Wire:
    if world.stored.pop(response_id, None) is None:
        return _missing(response_id)
    return _json({"id": response_id, "object": "response", "deleted": True}, Ids(random.Random(response_id)))


def cancel(world: World, _request: Incoming, response_id: str) -> Wire:
    stored = world.stored.get(response_id)
    if stored is None:
        return _missing(response_id)
    ids = Ids(random.Random(response_id))
    if not stored.response["background"]:
        detail = "Cannot cancel a synchronous response."
        return refusal("openai", "invalid", Facts(detail=detail), ids)
    if _settled(world, stored)["status"] in {"queued", "in_progress"}:
        stored.response, stored.final = {**stored.response, "status": "cancelled"}, None
    return _json(stored.response, ids)


def input_items(world: World, _request: Incoming, response_id: str) -> Wire:
    stored = world.stored.get(response_id)
    if stored is None:
        return _missing(response_id)
    data = stored.input_items[::-1]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    body = {"object": "list", "data": data, **ends, "has_more": False}
    return _json(body, Ids(random.Random(response_id)))


def input_tokens(world: World, request: Incoming) -> Wire:
    if wrong := check(request):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    total = count(ask_of(world, request).prompt) + 3
    return _json({"object": "response.input_tokens", "input_tokens": total}, Ids(random.Random(total)))


def compact(world: World, request: Incoming) -> Wire:
    """All user messages, then one opaque item that stands for the rest."""
    if wrong := check(request, "model"):
        return refusal("openai", "invalid", wrong, Ids(random.Random(0)))
    ask = ask_of(world, request)
    ids = Ids(random.Random(ask.prompt))
    kept = [item for item in history_of(world, request.body) if item.get("role") == "user"]
    opaque = "gAAAAAB" + ids.letters(200)
    items = [{"id": ids.item("msg_"), "status": "completed", **item} for item in kept]
    items.append({"id": ids.item("cmp_"), "type": "compaction", "encrypted_content": opaque})
    body = {
        "id": ids.item("resp_"),
        "object": "response.compaction",
        "created_at": int(world.clock()),
        "output": items,
        "usage": usage(world, ask, Reply(text=opaque)),
    }
    return _json(body, ids)
