"""The port of a call that may be tried again; part of `gateway.ports`, from where it is imported."""

from __future__ import annotations

from typing import Protocol


class Trial(Protocol):
    """One call that may be tried again; see stages.trials."""

    @property
    def open(self) -> bool:
        """Could a fallback still follow, so that nothing should be committed that says nothing?"""
        ...

    def again(self, status: int, body: bytes) -> bool:
        """The attempt brought an error inside a 200: shall another one follow?"""
        ...
