"""The part of a worker's composition root that has to do with upstreams that fail."""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import Call, Waits
from gateway.config.schema import Config
from gateway.policy.waits import WaitRules


def waits_of(config: Config) -> Callable[[Call], Waits]:
    """How long to wait for what, by call."""
    return WaitRules(config.timeouts, {name: upstream.timeouts for name, upstream in config.upstreams.items()}).waits
