"""The product on one screen: the path of a call."""

from __future__ import annotations

import contextlib
import logging

from gateway.call import Request
from gateway.errors import GatewayError, GatewayFault
from gateway.ports import Downstream, Gateway
from gateway.stages.arrive import arrive, locate, new_call
from gateway.stages.cache import recall
from gateway.stages.close import close
from gateway.stages.ending import ABORT
from gateway.stages.live import enter
from gateway.stages.loops import watch
from gateway.stages.refuse import refuse
from gateway.stages.unpack import LONG, unpack

log = logging.getLogger("tollgate.pipeline")


async def serve(request: Request, down: Downstream, gw: Gateway, fault: GatewayError | None = None) -> None:
    """Carry one call from its request to its record. `fault`: why the request could not even be read."""
    call = new_call(request, gw)
    ending = ABORT
    try:
        if fault is not None:
            with contextlib.suppress(GatewayError):
                locate(call, gw)  # for the words to refuse it in
            raise fault
        if b"content-encoding" in request.names or len(request.body) > LONG:
            await unpack(call, down, gw)  # for reading
        arrive(call, gw)  # route it, read it, find out who asks
        enter(call, down, gw)  # unless a person stopped it; from here on one can
        if gw.shedder is not None:
            gw.shedder.check(call)  # unless there is too much to do
        watch(call, gw)  # unless its run goes round in circles
        if (cached := await recall(call, down, gw)) is not None:
            ending = cached  # paid for before
            return
        if gw.admission is not None:
            await gw.admission.admit(call, down, gw)  # hold what it may cost at most
        ending = await gw.trials.carry(call, down, gw)  # attempt by attempt, until one commits
    except GatewayError as error:
        call.fault = error
        ending = refuse(call, error, down, gw)  # in the client's dialect, also in mid-stream
    except Exception as error:  # a bug: recorded and answered like every other fault, and told to the operator
        call.fault = error
        log.exception("call %s failed inside the gateway", call.id)
        ending = refuse(call, GatewayFault("internal error"), down, gw)
    except BaseException as error:  # cancellation
        call.fault = error
        raise
    finally:  # every exit path, and no await in here
        gw.live.remove(call)
        close(call, gw)
        if ending.complete:
            down.finish(ending.tail)  # only now may the client see the end of its answer
        else:
            down.abort(ending.tail)
