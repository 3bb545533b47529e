"""What MCP servers answer: which of the requests have their response, and what became of each tool call.

Rules
1. A response is known by the id of its request. A JSON-RPC error means that the tool did not run; `isError` in a result
   that it ran and failed.
2. A stream is over, as far as this gate is concerned, when every request of its POST has a response. It may end before:
   the protocol lets a server break off and a client resume elsewhere, so that is no truncation.
3. Reading never raises, and holds no more than 8 MiB of a document, or of one event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.call import Answer, Executed, Offered
from gateway.dialects.mcp_messages import McpAsked, identity
from gateway.dialects.meters import MAX_BODY, JsonMeter, NoStream
from gateway.dialects.shape import DECODE_FAULTS, NO_RAW, Shape, is_set
from gateway.dialects.sse import Splitter
from gateway.dialects.tool import units_in

Field = Callable[[str], tuple[str, ...]]
"""Where the answer of a tool states its units; () where it does not."""
Listing = Callable[[str], bool] | None
"""Of which tools it is to be heard what lists say; None: of none."""
LIST = "tools/list"
_any = msgspec.json.Decoder()
_array = msgspec.json.Decoder(list[Raw])


class _Response(Struct, gc=False):
    id: Raw = NO_RAW
    result: Raw = NO_RAW
    error: Raw = NO_RAW


class _Result(Struct, gc=False):
    isError: Any = None


_response, _result = Shape(_Response), Shape(_Result)


class Results:
    """The requests that wait for their response, and what is known of the others."""

    def __init__(self, asked: McpAsked, field: Field, *, listing: Listing = None) -> None:
        self.pending = dict.fromkeys(asked.ids)
        self.executed: list[Executed] = []
        self.offered: list[Offered] = []
        self._listing = listing if asked.method == LIST else None
        self._names = {use.id: use.name for use in asked.calls if use.id}
        self._calls = asked.calls
        self._field = field

    def message(self, text: bytes | Raw) -> None:
        """Note what one message says, if it is a response."""
        found = _response.salvage(text)
        if found is None or not (is_set(found.result) or is_set(found.error)):
            return
        identifier = identity(found.id)
        if identifier not in self.pending:
            return
        del self.pending[identifier]
        name = self._names.get(identifier)
        if name is None:
            if self._listing is not None:
                self.offered += offers(found.result, self._listing)
            return
        if is_set(found.error):
            self.executed.append(Executed(identifier, name, ran=False, is_error=True))
            return
        result = _result.salvage(found.result)
        failed = result is not None and result.isError is True
        self.executed.append(Executed(identifier, name, True, failed, self._units(name, found.result)))

    def messages(self, text: bytes) -> None:
        """One message, or a batch."""
        if not text.lstrip().startswith(b"["):
            self.message(text)
            return
        try:
            for raw in _array.decode(text):
                self.message(raw)
        except DECODE_FAULTS:
            return

    def refused(self) -> None:
        """The whole was answered with an error of HTTP: no tool ran whose result was not seen."""
        seen = {one.id for one in self.executed}
        missing = [use for use in self._calls if use.id not in seen]
        self.executed += [Executed(use.id, use.name, ran=False, is_error=True) for use in missing]

    def _units(self, name: str, result: Raw) -> float | None:
        field = self._field(name)
        if not field:
            return None
        try:
            return units_in(_any.decode(result), field)
        except DECODE_FAULTS:
            return None


def offers(result: Raw, listing: Callable[[str], bool]) -> list[Offered]:
    """What a list says of those tools that `listing` asks for. A tool changes something if its server says so, or says
    that it destroys and does not say that it only reads."""
    try:
        value = _any.decode(result)
    except DECODE_FAULTS:
        return []
    found = []
    for tool in value.get("tools") or () if isinstance(value, dict) else ():
        name = tool.get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and listing(name):
            said = tool.get("annotations")
            hints = said if isinstance(said, dict) else {}
            reads = hints.get("readOnlyHint")
            found.append(Offered(name, reads is False or (reads is not True and hints.get("destructiveHint") is True)))
    return found


class McpDocument(JsonMeter):
    """An answer that is one JSON document."""

    def __init__(self, asked: McpAsked, status: int, field: Field, *, listing: Listing = None) -> None:
        super().__init__(asked, status)
        self.results = Results(asked, field, listing=listing)

    def read(self, body: bytes) -> None:
        self.results.messages(body)

    def end(self) -> Answer:
        body = b"".join(self._parts) if self._status >= 400 else b""
        answer = super().end()
        if self._status >= 400:
            self.results.messages(body)
            self.results.refused()
        answer.executed = tuple(self.results.executed)
        answer.offered = tuple(self.results.offered)
        return answer


class McpStream(NoStream):
    """An answer that is an event stream. It has begun from the start: its head is not held back."""

    def __init__(self, asked: McpAsked, field: Field, *, listing: Listing = None) -> None:
        self.started = True
        self.terminal = False
        self.failed = ""
        self.results = Results(asked, field, listing=listing)
        self.resumable = False  # an event had an id
        self._asks = bool(asked.ids)
        self._cutter = Splitter(MAX_BODY)  # results may be pictures
        self._before = b"\n"  # the end of the piece before

    @property
    def partial(self) -> bool:
        """Does the stream so far stop inside an event?"""
        return self._cutter.partial

    def feed(self, data: bytes) -> None:
        if not data or self.terminal:
            return
        if not self.resumable:
            text = self._before + data
            self.resumable = b"\nid:" in text or b"\rid:" in text
            self._before = text[-3:]
        for _, text in self._cutter.feed(data):
            self.results.message(text)
        self.terminal = self._asks and not self.results.pending

    def end(self) -> Answer:
        for _, text in self._cutter.end():
            self.results.message(text)
        return Answer(executed=tuple(self.results.executed), offered=tuple(self.results.offered))
