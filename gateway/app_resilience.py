"""The part of a worker's composition root that has to do with upstreams that fail."""

from __future__ import annotations

from collections.abc import Callable

from gateway.call import Call, Waits
from gateway.config.schema import Config
from gateway.policy.chains import Chains
from gateway.policy.waits import WaitRules
from gateway.stages.trials import Manner, RetryingTrials
from gateway.stores.flights import paused


def waits_of(config: Config) -> Callable[[Call], Waits]:
    """How long to wait for what, by call."""
    return WaitRules(config.timeouts, {name: upstream.timeouts for name, upstream in config.upstreams.items()}).waits


def trials_of(config: Config) -> RetryingTrials | None:
    """Retries and fallbacks; None where every call is one attempt."""
    retries = config.retries
    if retries.attempts < 2 and not config.fallbacks:
        return None
    manner = Manner(**{name: getattr(retries, name) for name in retries.__struct_fields__})
    return RetryingTrials(manner, Chains(config.fallbacks), paused)
