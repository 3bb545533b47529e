"""What gateways tell each other of their breakers; see stores.redis_breakers."""

from __future__ import annotations

from typing import Protocol


class Adopt(Protocol):
    """Takes in what another gateway found."""

    def __call__(self, name: str, *, opened: bool, until: int, at: int) -> None:
        """`until`, `at`: in ns of the monotonic clock of this process."""
        ...
