"""Where calls go that several targets could answer; part of gateway.ports."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.call import Call, Request


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
