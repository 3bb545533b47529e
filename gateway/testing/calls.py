"""Calls as the pipeline has them when it asks who is calling, made from what a scripted client sends. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import Answer, Call, Request, ToolUse, Who
from gateway.dialects.identity_text import digest_text
from gateway.dialects.registry import DIALECTS
from gateway.dialects.routes import Table
from gateway.policy.trace import trace_of
from gateway.testing.wire import Reply, Sent

BEGAN = 1_000
ROUTES = Table({"openai": "openai", "anthropic": "anthropic", "gemini": "gemini"})


class MemoryLinks:
    """`ports.Links` in a dictionary, for tests of one process."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.values.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        if len(value) > 200:
            raise ValueError("200 bytes are the limit")
        self.values[key] = value

    def update(self, key: bytes, change: Callable[[bytes | None], bytes | None]) -> None:
        value = change(self.get(key))
        if value is not None:
            self.put(key, value)


def arrive(sent: Sent, now: int, number: int) -> Call:
    """A call that came in at `now` (ns since the epoch), routed and read. `number` makes its ids."""
    host, _, port = sent.client.rpartition(":")
    request = Request(b"POST", sent.path.encode(), sent.headers, sent.body, host, port=int(port or 0))
    route = ROUTES.resolve(request.method, request.path, "")
    asked = DIALECTS[route.dialect].read(route, request)
    trace = trace_of(sent.headers, f"{number:032x}", f"{number:016x}")
    return Call(f"call-{number}", request, route, asked, Who(), trace, now, BEGAN)


def settle(call: Call, reply: Reply, took: int) -> None:
    """The answer is over, `took` nanoseconds after the call began."""
    call.status, call.ended = reply.status, call.began + took
    if reply.status == 200:
        call.answer = Answer(
            response_id=reply.id,
            tool_uses=tuple(ToolUse(use.id, use.name) for use in reply.uses),
            output_chars=len(reply.text),
            sample=reply.text,
            text_digest=digest_text(reply.text),
        )
