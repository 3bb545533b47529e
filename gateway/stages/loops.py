"""Loops: is this run getting anywhere? Behind the identity, before money is held: a run that is stopped costs nothing.

What a sign of a runaway leads to is configured for each: a note in the record, a header that warns the client, a
cheaper call, or the end of the run, with a reason that the agent can read.
"""

from __future__ import annotations

from gateway.call import Call
from gateway.errors import RunStopped
from gateway.policy.loop_signals import Verdict
from gateway.ports import Gateway
from gateway.stages.cheaper import cheaper

WARNS = frozenset(("warn", "downshift"))


def watch(call: Call, gw: Gateway) -> None:
    """Raises RunStopped."""
    loops = gw.loops
    if loops is None or call.request.checks:  # the agent did not ask again: the gateway checks an answer
        return
    verdicts = loops.check(call, call.started_at)
    if verdicts:
        act(call, verdicts, gw)


def act(call: Call, verdicts: list[Verdict], gw: Gateway) -> None:
    signals = ",".join(sorted({verdict.signal for verdict in verdicts}))
    call.notes = {**call.notes, "loop": signals, "loop_reason": verdicts[0].reason[:300]}
    for verdict in verdicts:
        if verdict.action == "stop":
            call.notes["loop_action"] = "stop"
            if gw.halt is not None:
                gw.halt(call.who.run_id, f"{verdict.signal}: {verdict.reason}")
            raise RunStopped(f"The run was stopped ({verdict.signal}): {verdict.reason}", code="run_stopped")
    acted = {verdict.action for verdict in verdicts}
    if not acted.isdisjoint(WARNS):
        call.lines += f"x-tollgate-loop: {signals}\r\n"
    call.notes["loop_action"] = "downshift" if "downshift" in acted else "warn" if "warn" in acted else "note"
    step = gw.downshift
    if "downshift" in acted and step is not None:
        cheaper(call, gw, *step)
