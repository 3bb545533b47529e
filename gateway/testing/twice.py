"""One scenario, played twice: straight against the fake provider, and through a gateway in front of it.

What the client got must be equal; what the provider received must be equal byte for byte; and the gateway's record of
it is handed to the test. A scenario is a function of the base URL that returns something comparable.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.testing.fake_send import Recorded
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway

# A hop's own business, the length that usage injection changes, and the one header the gateway adds (loop detection).
_NOT_COMPARED = frozenset({"host", "connection", "content-length", "via"})
# What the gateway splices into a chat stream's request that does not ask for usage; nothing else may differ.
_INJECTED = re.compile(rb'"stream_options":\{"include_usage":true\},|,"stream_options":\{"include_usage":true\}')


@dataclass(slots=True)
class Played:
    result: Any  # what the client returned, equal on both ways
    calls: list[dict[str, Any]]  # what the gateway recorded, oldest first
    requests: list[Recorded] = field(default_factory=list)  # what the provider received through the gateway

    @property
    def call(self) -> dict[str, Any]:
        (only,) = self.calls
        return only

    def run(self) -> str:
        """The run that all calls belong to."""
        (only,) = {call["run_id"] for call in self.calls}
        return str(only)


@dataclass(slots=True)
class Twice:
    fake: FakeUpstream
    gate: RunningGateway
    salt: int = 0  # scenarios need different ones: ids of the provider are unique, and join the calls of a run

    def through(self, scenario: Callable[[str], Any], *, records: int | None = None) -> Played:
        """Play a scenario through the gateway. `records`: calls to wait for, if not one for each upstream request."""
        self.fake.reset(self.salt)
        known = {call["id"] for call in self.gate.calls(0)}
        result = scenario(self.gate.url)
        expected = len(self.fake.requests) if records is None else records
        found = self.gate.until(
            lambda: [call for call in self.gate.calls(0) if call["id"] not in known],
            lambda calls: len(calls) >= expected,
        )
        assert len(found) == expected
        return Played(result, found, list(self.fake.requests))

    def both(self, scenario: Callable[[str], Any]) -> Played:
        """Play it on both ways and hold them against each other."""
        self.fake.reset(self.salt)
        direct = scenario(self.fake.url)
        received = list(self.fake.requests)
        played = self.through(scenario)
        assert played.result == direct
        assert len(played.requests) == len(received)
        for one, other in zip(played.requests, received, strict=True):
            assert (one.method, one.target) == (other.method, other.target)
            injected = one.body != other.body
            assert not injected or _INJECTED.sub(b"", one.body, count=1) == other.body
            assert _headers(one, injected) == _headers(other, injected)
            assert one.messages == other.messages
        return played


def _headers(request: Recorded, injected: bool) -> list[tuple[str, str]]:
    """What must arrive as it was sent, in order; names in lower case."""
    pairs = [(name.decode().lower(), value.decode("latin-1")) for name, value in request.headers]
    varies = {"sec-websocket-key", "upgrade"} if request.status == 101 else set()
    # A compressed answer could not be edited, so the gateway does not ask for one where it injected.
    varies |= {"accept-encoding"} if injected else set()
    return [pair for pair in pairs if pair[0] not in _NOT_COMPARED | varies]
