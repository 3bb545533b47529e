"""The ports of a call that may be tried again, or be sent away; part of `gateway.ports`, from where they come."""

from __future__ import annotations

from typing import Any, Protocol

from gateway.call import Call


class Trial(Protocol):
    """One call that may be tried again; see stages.trials."""

    @property
    def open(self) -> bool:
        """Could a fallback still follow, so that nothing should be committed that says nothing?"""
        ...

    @property
    def above(self) -> bool:
        """Is a dearer target of its cascade left?"""
        ...

    def rises(self) -> bool:
        """Its answer has not the form that was demanded: shall that target be asked?"""
        ...

    def keep_waiting(self, passage: Any) -> None:
        """A stream is held back (stages.passage.Passage): have its client wait."""
        ...

    def again(self, status: int, body: bytes) -> bool:
        """The attempt brought an error inside a 200: shall another one follow?"""
        ...


class Trials(Protocol):
    """Retries and fallbacks; see stages.trials. `gw`: the Gateway, `down`: a ports.Downstream."""

    def wary(self, gw: Any) -> bool:
        """Could any target be left alone for now?"""
        ...

    def shut(self, upstream: str, model: str, gw: Any) -> bool:
        """Is this target left alone for now? Changes nothing."""
        ...

    async def carry(self, call: Call, down: Any, gw: Any) -> Any:
        """Attempt by attempt until one commits; returns how the call ends (stages.ending.Ending). Raises UpstreamFault,
        ClientGone, and what ends the call."""
        ...


class Shedder(Protocol):
    """Sends calls away while the worker has too much to do; see stages.shed."""

    def check(self, call: Call) -> None:
        """Raises Overloaded."""
        ...
