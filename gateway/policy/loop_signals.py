"""The signs of a runaway agent, each with the theory why such a pattern means that nothing is gained. Pure.

A signal reads the trail of an agent, whose newest entry is the step just made, and says what it found, or nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.call import Step, ToolTurn
from gateway.config.schema import LoopAction, Loops
from gateway.policy.loop_pace import MINIMUM_CALLS, MINIMUM_SPENT, Baseline, Pulse
from gateway.policy.loop_trail import Streak, Trail

LEAST_PERIODS = 3
NAMES_SHOWN = 3
NAME_SHOWN = 64


Names = Mapping[str, str]  # of tools by call id, where the body does not hold them


class Verdict(Struct, frozen=True, gc=False):
    """`reason` is for the agent to read; `evidence` for people and records."""

    signal: str
    action: LoopAction
    reason: str
    evidence: dict[str, int | str]


def repeated_call(trail: Trail, step: Step, names: Names, config: Loops) -> Verdict | None:
    """The same call brought the same result, again and again.

    Theory: to an agent its context is its state. A call that is repeated and answered as before adds nothing to it but
    its own repetition, so the policy that chose this call will, near enough, choose it again; for a deterministic one
    that is certain. Work done in between (an edit before the same test) is a change of state, so repetitions count from
    the last news on; with news in between it takes twice as many. Different results are progress, as of a job that is
    polled, unless the whole window holds nothing but this one call.
    """
    ring = trail.entries
    newest = ring[-1]
    if not newest >> 16 & 1:
        return None
    same = ring.count(newest)
    if same >= config.repeats:
        dry = _since_news(ring, trail.fresh)
        if dry >= config.repeats or same >= 2 * config.repeats:
            called = tool_names(step, names)
            return Verdict(
                "repeated_call",
                config.repeated_call,
                f"{called} was called {same} times within the last {len(ring)} steps with the same arguments "
                "and the same result. Repeating it will not change the result: use what it returned, "
                "change the approach, or finish.",
                {"tools": called, "count": same, "steps": len(ring)},
            )
    done = newest >> 16
    if len(ring) >= config.window and ring[-2] >> 16 == done and all([entry >> 16 == done for entry in ring]):
        called = tool_names(step, names)
        return Verdict(
            "repeated_call",
            config.repeated_call,
            f"{called} was called with the same arguments in each of the last {len(ring)} steps, and nothing else "
            "was done. Wait longer between such calls, change the approach, or finish.",
            {"tools": called, "count": len(ring), "steps": len(ring)},
        )
    return None


def _since_news(ring: Sequence[int], fresh: int) -> int:
    """How often the newest step occurs from the last news on, the step that brought it included."""
    count, newest = 0, ring[-1]
    for entry in reversed(ring):
        count += entry == newest
        if fresh & 1:
            break
        fresh >>= 1
    return count


def cycle(trail: Trail, step: Step, names: Names, config: Loops) -> Verdict | None:
    """The last steps and their results repeat with a period of two or more.

    Theory: a deterministic agent in a world that answers alike is a map of a finite set of states onto itself; once a
    state recurs the orbit is closed, and it repeats for ever. A language model is not wholly deterministic, so one
    recurrence proves nothing; the chance that a policy which takes another way with probability q each step follows
    the same orbit for m further steps is (1 - q)^m. Asked for are m = 2 (repeats - 1) steps that exactly repeat what
    stood one period before, and three periods at least. Where only the results differ, the whole window must consist
    of the cycle.
    """
    ring = trail.entries
    for period in range(2, config.period + 1):
        wanted = max(LEAST_PERIODS, -(-2 * (config.repeats - 1) // period) + 1)
        length = min(wanted, config.window // period) * period
        if 2 * period <= length <= len(ring) and ring[-length + period :] == ring[-length:-period]:
            return _cycle(ring[-period:], period, length, tool_names(step, names), config)
    if len(ring) >= config.window and ring[-1] >> 16:
        done = [entry >> 16 for entry in ring]
        for period in range(2, min(config.period, len(done) // LEAST_PERIODS) + 1):
            if done[period:] == done[:-period]:
                return _cycle(done[-period:], period, len(done), tool_names(step, names), config)
    return None


def _cycle(orbit: Sequence[int], period: int, length: int, called: str, config: Loops) -> Verdict | None:
    if len(set(orbit)) == 1:  # that is a repeated call
        return None
    return Verdict(
        "cycle",
        config.cycle,
        f"the same {period} steps have been made {length // period} times in a row, lately {called}. "
        "They lead back to where they began: take another way, or finish.",
        {"tools": called, "period": period, "count": length // period, "steps": length},
    )


def error_ping_pong(trail: Trail, step: Step, names: Names, config: Loops) -> Verdict | None:
    """One tool fails in one way again and again, with whatever arguments, perhaps in turn with another.

    Theory: failures of independent causes are a Bernoulli process, in which n failures alike without one success have
    probability p^n: for a tool that fails half the time and n = 5 that is 3 %, and each success starts the count anew.
    So a long streak says that the cause lies in what all the tries have in common, which trying again does not change.
    Digits of the message do not count (times, line numbers). News from other tools may be work on the cause: with it
    in between it takes twice as many.
    """
    worst = max(trail.streaks, key=_streak_length, default=None)
    if worst is None or worst.at != trail.steps & 255:
        return None
    if worst.dry < config.repeats and worst.count < 2 * config.repeats:
        return None
    failed = _called([tool for tool in step.tools if tool.failure], names)
    return Verdict(
        "error_ping_pong",
        config.error_ping_pong,
        f"{failed} failed {worst.count} times in the same way without one success in between. "
        "Trying again will fail again: read the error, change what all the tries have in common, or finish.",
        {"tools": failed, "count": worst.count},
    )


def _streak_length(streak: Streak) -> tuple[int, int]:
    return streak.dry, streak.count


def no_new_information(trail: Trail, step: Step, names: Names, config: Loops) -> Verdict | None:
    """Steps are made and paid for, but all that came from outside was there before.

    Theory: each step sends the whole chain of steps before it as its prefix, so the cost of n steps grows with n^2,
    while what the model can know of the world grows only by what comes from outside; its own words, a function of the
    context, cannot add to that (data processing inequality). A chain that grows without new results buys nothing. What
    counts as known: a result that a call of this shape (digits left out, so that a changing counter is no new call)
    brought before; a message of the user said before, where the answer to it is also known, word for word or reworded
    (sketches of both overlap). It takes 2 x repeats such steps in a row: agents do read a file again.
    """
    needed = 2 * config.repeats
    if trail.stale < needed:
        return None
    called = tool_names(step, names)
    what = f"{called} returned" if step.tools else "the answers said"
    return Verdict(
        "no_new_information",
        config.no_new_information,
        f"the last {trail.stale} steps brought nothing new: {what} only what was known before. "
        "Use what is known, ask for something else, or finish.",
        {"tools": called, "count": trail.stale},
    )


def call_rate(pulse: Pulse, agent: Baseline, config: Loops) -> Verdict | None:
    """Far more calls in this minute than is usual.

    Theory: an agent waits for tools and answers, so its rate has a scale of its own; a loop without its waiting leaves
    that scale by orders of magnitude. Usual is the median minute of the agent's runs, and of this run once that is
    known: both must be left behind, so that a quick run of a slow agent may go on. Far is `rate_factor` times that and
    four robust deviations (1.4826 MAD) of the logarithm. Median and MAD bear that half of all values are wrong, so that
    a runaway does not become its own measure.
    """
    known = [usual.calls for usual in (agent, pulse.usual) if usual.known]
    if pulse.calls < MINIMUM_CALLS or not known:
        return None
    if not all([usual.exceeded(pulse.calls, config.rate_factor) for usual in known]):
        return None
    common = 2 ** known[0].median
    return Verdict(
        "call_rate",
        config.call_rate,
        f"{pulse.calls} calls within a minute, where {common:.0f} are usual.",
        {"count": pulse.calls, "usual": round(common)},
    )


def spend_rate(pulse: Pulse, agent: Baseline, config: Loops) -> Verdict | None:
    """Far more spent in this minute than is usual.

    Theory: as of `call_rate`; it sees contexts that grow and dearer models, which the number of calls does not show.
    """
    known = [usual.spent for usual in (agent, pulse.usual) if usual.known]
    if pulse.spent < MINIMUM_SPENT or not known:
        return None
    if not all([usual.exceeded(pulse.spent, config.rate_factor) for usual in known]):
        return None
    common = 2 ** known[0].median / 1e6
    return Verdict(
        "spend_rate",
        config.spend_rate,
        f"${pulse.spent / 1e6:.2f} spent within a minute, where ${common:.4f} are usual.",
        {"micro_usd": pulse.spent, "usual_micro_usd": round(2 ** known[0].median)},
    )


def depth(level: int, config: Loops) -> Verdict | None:
    """A sub-agent of a sub-agent of ... deeper than `max_depth`.

    Theory: delegation is recursion. Each level is meant to get a smaller task; where levels go on without end the tasks
    do not get smaller, and with b sub-agents each, depth d costs b^d.
    """
    if level <= config.max_depth:
        return None
    return Verdict(
        "depth",
        config.depth,
        f"this is a sub-agent at depth {level}; at most {config.max_depth} levels are usual. Do the task here, "
        "without another sub-agent.",
        {"count": level},
    )


def tool_names(step: Step, names: Names) -> str:
    """As a reason shows them."""
    return _called(step.tools, names) if step.tools else "answers"


def _called(tools: Sequence[ToolTurn], names: Names) -> str:
    return _listed([tool.name or names.get(tool.id, "") or "a tool" for tool in tools])


def _listed(names: Sequence[str]) -> str:
    """Foreign text: printable and short."""
    shown = list(dict.fromkeys(["".join([c for c in name if c.isprintable()])[:NAME_SHOWN] for name in names]))
    more = f" and {len(shown) - NAMES_SHOWN} more" if len(shown) > NAMES_SHOWN else ""
    return ", ".join(shown[:NAMES_SHOWN]) + more
