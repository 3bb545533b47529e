"""Close: the one end of every call. Synchronous, so that nothing can come between its steps."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from gateway.call import Call
from gateway.ports import Gateway
from gateway.stages.account import account

log = logging.getLogger("tollgate.close")


def close(call: Call, gw: Gateway) -> None:
    """Account for what was not accounted for, settle, remember the answer for the next call of its run, record."""
    call.ended = gw.monotonic()
    steps: tuple[Callable[[], None], ...] = (
        partial(account, call, call.meter, gw),
        *((partial(gw.admission.settle, call),) if gw.admission is not None else ()),
        *((partial(gw.cache.settle, call),) if gw.cache is not None else ()),
        *((partial(gw.loops.learn, call, call.started_at),) if gw.loops is not None else ()),
        *((partial(gw.prompt_cache.learn, call),) if gw.prompt_cache is not None else ()),
        partial(gw.identity.learn, call),
        partial(gw.journal.append, call, call.slot),
    )
    for step in steps:
        try:
            step()
        except Exception:  # one failing step must not take the others with it, nor hide the call's own fault
            call.notes = {**call.notes, "close_failed": "1"}
            log.exception("a step of close failed for call %s", call.id)
