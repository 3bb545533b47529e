"""Where calls go that several targets could answer; part of gateway.ports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from gateway.call import Asked, Call, Request, Route


class Form(Struct, frozen=True):
    """What an answer can be held against without knowing better than the model: the form that was asked for."""

    json: bool = False  # its text is to be JSON
    schema: Any = None  # of this form; None: any JSON will do
    call: bool = False  # it is to call a tool
    names: tuple[str, ...] = ()  # one of these; (): any
    tools: Mapping[str, Any] = {}  # name -> JSON Schema of its arguments, of those that the client runs


class Given(Struct, frozen=True):
    """One choice of an answer, as far as that form goes."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()  # (name of a tool, JSON text of its arguments)
    ended: str = ""  # stop, length, tools or filtered
    refused: bool = False  # the model says that it declines


class Reading(Protocol):
    """An answer as it is read, so that nothing is left to do at its end."""

    full: bool  # it is larger than was to be read

    def feed(self, plain: bytes) -> None:
        """The next piece of it, decoded. Never raises."""
        ...

    def given(self) -> Sequence[Given] | None:
        """Its choices, at its end; None where it cannot be read. Never raises."""
        ...


class Checker(Protocol):
    """Reads forms that are asked for, and answers to them, in each API; pure."""

    def demand(self, route: Route, asked: Asked) -> Form | None:
        """None: nothing can be checked. Never raises."""
        ...

    def reading(self, route: Route, limit: int) -> Reading:
        """Of an answer of up to so many bytes: a document or a stream."""
        ...


class Router(Protocol):
    """See stages.route. `gw`: the Gateway."""

    def plan(self, call: Call, gw: Any) -> Any:
        """Its targets in the order in which they should be tried, and why (policy.routing.Plan); None: as it was
        going. Changes nothing, never raises."""
        ...

    def route(self, call: Call, plain: Request, gw: Any) -> None:
        """Send it to the first of them, and note why. `plain`: its request with the body decoded."""
        ...

    def hear(self, call: Call, exchange: Any, gw: Any) -> None:
        """The head of an answer (ports.Exchange) of its last attempt is there."""
        ...

    def learn(self, call: Call, gw: Any) -> None:
        """After the end: what its attempts took, and how good the answer was, as far as that can be seen."""
        ...
