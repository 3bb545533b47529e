"""The breaker for runaway agents: signs that a run goes on without getting anywhere. Pure.

Rules
1. A verdict is a finding with the action configured for it; what is done is the pipeline's. Several may be found at
   once; `worst` gives the one to act on.
2. A step counts once: a request that comes again (a retry, or several samples of one question) changes nothing, and is
   judged as before: what was stopped is not let through by trying again.
3. Agents of a run that were asked the same share a trail, in which the steps of one count: those that follow on each
   other.
4. State lives in ports.Links, one value of at most 200 bytes each: a trail per conversation of an agent in a run, a
   pulse per run, a baseline per agent. It may be lost at any time: then the count starts anew.
5. Where every signal is `off`, nothing is read, remembered or computed; where some are, only what they need.
6. Failing to see is better than a false alarm: what cannot be read, or comes without its arguments, is news.

See docs/loops.md for thresholds and measured rates, and loop_signals for the theory of each signal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256

from gateway.call import Asked, Call, Step
from gateway.config.schema import Loops
from gateway.policy.loop_facts import mark
from gateway.policy.loop_pace import Baseline, Pulse, baseline, busy, pulse
from gateway.policy.loop_signals import (
    Verdict,
    call_rate,
    cycle,
    depth,
    error_ping_pong,
    no_new_information,
    repeated_call,
    spend_rate,
)
from gateway.policy.loop_trail import Trail, unpack
from gateway.ports import Links

PICO_PER_NANO = 1000
KEYS_KEPT = 4096  # made from the names of runs and agents: a run makes the same again with every call
NEW = "new"  # Who.run_source of the first call of a run that its client does not name
ACTIONS = ("off", "note", "warn", "downshift", "stop")  # from the mildest
STEP_SIGNALS = {
    "repeated_call": repeated_call,
    "cycle": cycle,
    "error_ping_pong": error_ping_pong,
    "no_new_information": no_new_information,
}
RATE_SIGNALS = {"call_rate": call_rate, "spend_rate": spend_rate}
SIGNALS = (*STEP_SIGNALS, *RATE_SIGNALS, "depth")
_UNKNOWN = baseline(None)

ReadStep = Callable[[str, Asked], Step | None]


def check_steps(trail: Trail, step: Step, names: Mapping[str, str], config: Loops) -> list[Verdict]:
    """Add the newest step to the trail, unless it is there already, and judge it. `names`: of tools, by call id."""
    if step.key != trail.key:
        if trail.is_aside(step.before):
            trail.aside += 1
            return []
        trail.push(mark(step, trail, names), step.key, config.window, step.last, step.before)
    if not (trail.stale or trail.streaks or _turns_back(trail, config)):  # most steps are done here
        return []
    found = [
        signal(trail, step, names, config) for name, signal in STEP_SIGNALS.items() if getattr(config, name) != "off"
    ]
    return [verdict for verdict in found if verdict is not None]


def _turns_back(trail: Trail, config: Loops) -> bool:
    """With the window full: was, perhaps, the same done a period ago, though with another result?"""
    ring = trail.ring
    return len(ring) >= 4 * config.window and ring.find(ring[-2:], -4 * config.period - 2, -4) >= 0


def check_rates(beat: Pulse, agent: Baseline, config: Loops) -> list[Verdict]:
    """Judge the current minute of a run. `agent`: what is usual for its agent."""
    found = [signal(beat, agent, config) for name, signal in RATE_SIGNALS.items() if getattr(config, name) != "off"]
    return [verdict for verdict in found if verdict is not None]


def worst(verdicts: list[Verdict]) -> Verdict | None:
    """The one with the strongest action; of equals the first."""
    return max(verdicts, key=lambda verdict: ACTIONS.index(verdict.action), default=None)


def active(config: Loops) -> bool:
    """Is any signal to be looked for at all?"""
    return any(getattr(config, name) != "off" for name in SIGNALS)


class LoopBreaker:
    """The signals with their memory. `read_step(dialect, asked)` reads the newest step of a request."""

    def __init__(self, config: Loops, links: Links, read_step: ReadStep) -> None:
        self._config = config
        self._links = links
        self._read_step = read_step
        self._steps = any(getattr(config, name) != "off" for name in STEP_SIGNALS)
        self._rates = any(getattr(config, name) != "off" for name in RATE_SIGNALS)
        self._depth = config.depth != "off"

    def check(self, call: Call, now: int) -> list[Verdict]:
        """What is wrong with the run of this call, which has been identified; usually nothing. Never raises.

        `now`: ns since the epoch.
        """
        who = call.who
        if not who.run_id:
            return []
        verdicts = self._check_step(call) if self._steps and call.asked.messages else []
        if self._rates and who.run_source != NEW:
            value = self._links.get(_key(b"P", who.tenant, who.run_id))
            if value is not None and busy(value, now):
                agent = baseline(self._links.get(_key(b"B", who.tenant, who.agent))) if who.agent else _UNKNOWN
                verdicts += check_rates(pulse(value), agent, self._config)
        if self._depth and who.depth and (deep := depth(who.depth, self._config)) is not None:
            verdicts.append(deep)
        return verdicts

    def learn(self, call: Call, now: int) -> None:
        """After the answer, when its cost is known: how fast the run calls and spends. `now`: ns since the epoch."""
        who = call.who
        if not self._rates or not who.run_id or who.run_source == NEW:  # most of those have one call, and no rate
            return
        over: list[tuple[int, int]] = []
        nano_usd = (call.money.total or 0) // PICO_PER_NANO

        def change(value: bytes | None) -> bytes:
            beat = pulse(value)
            if (minute := beat.beat(now, nano_usd)) is not None:
                over.append(minute)
            return beat.pack()

        self._links.update(_key(b"P", who.tenant, who.run_id), change)
        if over and who.agent:
            self._links.update(_key(b"B", who.tenant, who.agent), lambda value: _fed(value, over[-1]))

    def _check_step(self, call: Call) -> list[Verdict]:
        step = self._read_step(call.route.dialect, call.asked)
        if step is None:
            return []
        names = {tool.id: tool.name for tool in call.tools}
        verdicts: list[Verdict] = []

        def change(value: bytes | None) -> bytes | None:
            trail = unpack(value)
            known = trail.key == step.key
            verdicts[:] = check_steps(trail, step, names, self._config)
            return None if known else trail.pack()

        who = call.who
        self._links.update(_key(b"T", who.tenant, f"{who.run_id}\0{who.agent}\0{step.root}"), change)
        return verdicts


def _fed(value: bytes | None, minute: tuple[int, int]) -> bytes:
    usual = baseline(value)
    usual.feed(*minute)
    return usual.pack()


@lru_cache(KEYS_KEPT)
def _key(kind: bytes, tenant: str, name: str) -> bytes:
    """16 bytes; apart from the keys of other users of the table by its first part."""
    return sha256(b"loop%b%d:%b%b" % (kind, len(tenant), tenant.encode(), name.encode("utf-8", "replace"))).digest()[
        :16
    ]
