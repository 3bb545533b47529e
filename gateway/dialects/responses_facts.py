"""What a response object of the Responses and realtime APIs says, wherever it stands."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.dialects.meters import Draft, first_text
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.usage import as_dict, openai_usage


class _Content(Struct, gc=False):
    text: Any = None
    refusal: Any = None
    transcript: Any = None


class Item(Struct, gc=False):
    """An output item."""

    type: Any = None
    id: Any = None
    call_id: Any = None
    name: Any = None
    arguments: Any = None
    input: Any = None
    content: list[_Content] | None = None
    summary: list[_Content] | None = None
    action: Any = None


class Response(Struct, gc=False):
    id: Any = None
    object: Any = None
    model: Any = None
    status: Any = None
    output: list[Item] | None = None
    usage: Raw = NO_RAW
    service_tier: Any = None
    error: Raw = NO_RAW
    incomplete_details: Any = None
    background: Any = None
    tool_usage: Any = None


RESPONSE = Shape(Response)
ITEM = Shape(Item)
_OVER = {"completed", "incomplete", "failed", "cancelled"}
ENDINGS = {"response.completed", "response.incomplete", "response.failed", "response.done", "response.cancelled"}
_MADE = {"message", "reasoning"}  # as calls are: all of it is output of the model
_CALLS = {"function_call", "custom_tool_call", "local_shell_call", "shell_call", "computer_call", "apply_patch_call"}


def note_item(draft: Draft, item: Item) -> None:
    """Remember the tool calls that the client is asked to make, and what may be referred to."""
    if item.type in _MADE or item.type in _CALLS:
        draft.item(item.id)
    if item.type in _CALLS:
        call = first_text(item.call_id, item.id)
        draft.tool(call, call, first_text(item.name, item.type))


def note_output(draft: Draft, items: list[Item]) -> None:
    """All of a finished output: text, reasoning and tool calls."""
    for item in items:
        note_item(draft, item)
        for part in item.content or ():
            if item.type == "message" and type(part.text) is str:
                draft.text(part.text)
            else:
                draft.other(part.text)
            draft.refusal(part.refusal)
            draft.other(part.transcript)
        for part in item.summary or ():
            draft.other(part.text)
        draft.other(item.arguments)
        draft.other(item.input)


def note_response(draft: Draft, response: Response, *, billed: bool = True) -> None:
    """Everything of a response object but its output."""
    draft.named(response.model, response.id)
    if type(response.service_tier) is str:
        draft.pricing["service_tier"] = response.service_tier
    if type(response.status) is str and response.status in _OVER:
        reason = as_dict(response.incomplete_details).get("reason")
        draft.finish[0] = reason if type(reason) is str else response.status
    if billed and is_set(response.usage):
        draft.usage = openai_usage(response.usage)
        found = {"web_searches": _searches(response), **_beside(response)}
        more = {name: float(count) for name, count in found.items() if count}
        if draft.usage is not None and more:
            draft.usage = msgspec.structs.replace(draft.usage, detail={**draft.usage.detail, **more})
    draft.background = response.background is True and not is_set(response.usage)
    if is_set(response.error):
        note_error(draft, response.error)


def note_error(draft: Draft, raw: Raw) -> None:
    try:
        error = as_dict(msgspec.json.decode(raw))
    except DECODE_FAULTS:
        error = {}
    draft.error(first_text(error.get("code"), error.get("type")), first_text(error.get("message")))


def _beside(response: Response) -> dict[str, int]:
    """What is billed beside the tokens, under the names of policy.hosted_tools: pictures, and whether code ran."""
    kinds = [item.type for item in response.output or ()]
    pictures, code = kinds.count("image_generation_call"), "code_interpreter_call" in kinds
    return {"image_generations": pictures, "code_containers": int(code)}


def _searches(response: Response) -> int:
    """Web searches made: as stated, else the search actions in the output."""
    stated = as_dict(as_dict(response.tool_usage).get("web_search")).get("num_requests")
    if type(stated) is int and stated >= 0:
        return stated
    return sum(
        item.type == "web_search_call" and as_dict(item.action).get("type", "search") == "search"
        for item in response.output or ()
    )
