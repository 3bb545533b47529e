"""Close: the one end of every call. Synchronous, so that nothing can come between its steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

from gateway.call import Call
from gateway.errors import UpstreamFault
from gateway.ports import Gateway
from gateway.stages.account import account

log = logging.getLogger("tollgate.close")


def close(call: Call, gw: Gateway) -> None:
    """Account for what was not accounted for, settle, remember the answer for the next call of its run, record."""
    call.ended = gw.monotonic()
    for step in steps_of(gw):
        try:
            step(call)
        except Exception:  # one failing step must not take the others with it, nor hide the call's own fault
            call.notes = {**call.notes, "close_failed": "1"}
            log.exception("a step of close failed for call %s", call.id)


@lru_cache(4)
def steps_of(gw: Gateway) -> tuple[Callable[[Call], None], ...]:
    """The steps in their order; the same for every call of a configuration."""
    loops = gw.loops
    return (
        lambda call: account(call, call.meter, gw, cut=isinstance(call.fault, UpstreamFault)),
        *((gw.admission.settle,) if gw.admission is not None else ()),
        *((gw.cache.settle,) if gw.cache is not None else ()),
        *((gw.router.learn,) if gw.router is not None else ()),
        *((lambda call: None if call.request.checks else loops.learn(call, call.started_at),) if loops else ()),
        *((gw.prompt_cache.learn,) if gw.prompt_cache is not None else ()),
        gw.identity.learn,
        lambda call: gw.journal.append(call, call.slot),
    )
