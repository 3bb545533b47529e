"""What a dialect does unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from gateway.call import Answer, Asked, Bounds, Edit, Request, Route, Usage
from gateway.dialects import finish, lowering
from gateway.dialects.blame import blame as blamed
from gateway.dialects.meters import JsonMeter, OpaqueMeter
from gateway.dialects.streams import EventMeter, Sniffer
from gateway.errors import GatewayError
from gateway.ports import Blame, ErrorAnswer, LastTurn, Meter, Stripper, Tap, Used

OTHER = "other"  # template of the routes that are relayed without being understood


class Untouched:
    """The stripper of streams to which nothing was added."""

    def feed(self, data: bytes) -> bytes:
        return data

    def end(self) -> bytes:
        return b""


class Unread:
    """The tap of WebSockets whose messages mean nothing to the dialect."""

    def feed(self, from_client: bool, data: bytes) -> None:
        pass

    def used(self) -> Used | None:
        return None

    def strays(self, model: str) -> bool:
        return False

    def withheld(self) -> None:
        pass

    def close(self, fault: GatewayError, request_id: str) -> bytes:
        return b""

    def end(self) -> Answer:
        return Answer(pending=True)


class BaseDialect:
    """JSON or event-stream answers, nothing injected. Sub-classes supply the meters and the words of errors."""

    name = ""
    ping = b""
    caches_marked = False

    def read(self, route: Route, request: Request) -> Asked:
        """Bodies of paths without a known meaning (uploads, for one) are nobody's to judge."""
        return Asked() if route.template == OTHER else self.question(route, request)

    def question(self, route: Route, request: Request) -> Asked:
        """Read the body of a known route. Raises BadBody."""
        raise NotImplementedError

    def bounds(self, route: Route, asked: Asked) -> Bounds:
        return Bounds()

    def document(self, route: Route, asked: Asked, status: int) -> Meter:
        return JsonMeter(asked, status)

    def stream(self, route: Route, asked: Asked) -> Meter:
        raise NotImplementedError

    def meter(self, route: Route, asked: Asked, status: int, content_type: bytes) -> Meter:
        """By the content type; where that says JSON or nothing for a stream that was asked for, by the first byte.

        Where no tokens pass, only errors are read.
        """
        if not route.operation:
            return OpaqueMeter(asked, status)
        if status >= 400:
            return self.document(route, asked, status)
        if content_type.find(b"event-stream") >= 0:
            return self.stream(route, asked)
        if asked.stream:
            return Sniffer(lambda: self.stream(route, asked), lambda: self.document(route, asked, status))
        return self.document(route, asked, status)

    def writes_into(self, route: Route, kind: bytes) -> bool:
        return kind.startswith(b"text/event-stream")

    def inject_usage(self, route: Route, asked: Asked, body: bytes) -> Edit | None:
        return None

    def cap_output(
        self, route: Route, asked: Asked, body: bytes, ceiling: int, model: str = ""
    ) -> tuple[Edit, ...] | None:
        return None

    def lower_effort(self, route: Route, asked: Asked, body: bytes, effort: str, model: str = "") -> tuple[Edit, ...]:
        return ()

    def mark_prefix(self, route: Route, asked: Asked, body: bytes) -> tuple[Edit, ...]:
        return ()

    def rename(self, route: Route, asked: Asked, model: str) -> tuple[Route, tuple[Edit, ...]]:
        return route, lowering.rename_in_body(asked, model)

    def stripper(self) -> Stripper:
        return Untouched()

    def sieve(self, allowed: Callable[[str], bool], *, stream: bool) -> Stripper:
        return Untouched()

    def rejects_injection(self, status: int, body: bytes) -> bool:
        return False

    def tap(self, extensions: bytes) -> Tap:
        return Unread()

    def unfinished(self, tail: bytes) -> bytes:
        return tail

    def remark(self, note: str) -> bytes:
        return finish.comment(note)

    def blame(self, status: int, body: bytes) -> Blame:
        return blamed(status, body)

    def streamed(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return None

    def gathered(self, route: Route, asked: Asked, body: bytes) -> bytes | None:
        return None

    def last_turn(self, route: Route, value: Mapping[str, Any]) -> LastTurn:
        return LastTurn("", {}, why="shape")

    def answer_text(self, route: Route, asked: Asked, body: bytes, *, stream: bool) -> str | None:
        document = self.gathered(route, asked, body) if stream else body
        return None if document is None else self.said(document)

    def said(self, document: bytes) -> str | None:
        """`answer_text` of a JSON answer."""
        return None

    def finish_early(
        self, meter: Meter, asked: Asked, request_id: str, usage: Usage, note: str = "budget_exceeded"
    ) -> bytes:
        return b""

    def last_word(self, fault: GatewayError, request_id: str, names: Mapping[bytes, bytes]) -> ErrorAnswer | None:
        return None

    def refusal(
        self,
        fault: GatewayError,
        request_id: str,
        *,
        stream: bool,
        route: Route | None = None,
        asked: Asked | None = None,
    ) -> ErrorAnswer:
        raise NotImplementedError


def inner(meter: Meter) -> Meter:
    """The meter that reads the body, where another one had to find out which it is."""
    return meter.chosen if isinstance(meter, Sniffer) else meter


def closing(meter: Meter) -> bytes:
    """What ends the event in which the stream was cut, if it was."""
    meter = inner(meter)
    if isinstance(meter, EventMeter):
        meter.drain()
        return meter.gap if meter.broken else b""
    return b""


def plain_path(route: Route) -> bytes:
    """The path without its query."""
    return route.path.partition(b"?")[0]


def path_model(route: Route) -> tuple[str, str]:
    """(model, method) of `.../models/{model}:{method}`; empty where the path names none."""
    path = plain_path(route)
    _, found, last = path.rpartition(b"odels/")  # models/ and tunedModels/
    if not found:
        return "", ""
    name, _, method = last.partition(b":")
    return unquote_to_bytes(name).decode("utf-8", "replace"), method.decode("ascii", "replace")
