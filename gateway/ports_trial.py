"""The ports of a call that may be tried again, or be sent away; part of `gateway.ports`, from where they come."""

from __future__ import annotations

from typing import Protocol

from gateway.call import Call


class Trial(Protocol):
    """One call that may be tried again; see stages.trials."""

    @property
    def open(self) -> bool:
        """Could a fallback still follow, so that nothing should be committed that says nothing?"""
        ...

    def again(self, status: int, body: bytes) -> bool:
        """The attempt brought an error inside a 200: shall another one follow?"""
        ...


class Shedder(Protocol):
    """Sends calls away while the worker has too much to do; see stages.shed."""

    def check(self, call: Call) -> None:
        """Raises Overloaded."""
        ...
