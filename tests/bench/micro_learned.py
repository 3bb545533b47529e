"""`python -m tests.bench.micro_learned [--rounds N]`: microseconds of a learned choice among nine models.

A decision is `Router.plan` of a call that has arrived: rule, prompt, features, nine expected scores. Beside it, what a
call costs more in the whole pipeline of a worker without its sockets (as in `micro`) than under a rule that takes the
first of its targets: the decision, and the features in its record. CPU time of the thread, of the quickest batch: what
others do on the machine only adds to it. Prompts of three lengths; the bar is 300 us for a decision.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from gateway.app import Worker
from gateway.policy.selection import Goal
from gateway.policy.selection_features import features
from gateway.policy.selection_learner import Example, Learner
from gateway.policy.selection_standing import ScopeStanding
from gateway.stages.arrive import arrive, new_call
from gateway.stores.sqlite_learned import SqliteLearned
from tests.bench.bodies import NOTES, chat, compact
from tests.bench.micro import OPENAI_ANSWER, SDK, Bench, Wire, worker_in
from tests.bench.targets import CHAT

ARMS = [f"model-{number}" for number in range(9)]
LENGTHS = (100, 800, 4_000)  # characters of a prompt
BATCH = 50
ROUNDS = 60
LABELS = 600
BOUND_US = 300.0


def rule(by: str, **more: Any) -> dict[str, Any]:
    return {"routes": [{"to": ARMS, "by": by, **more}]}


def teach(place: Path) -> None:
    """Leave what was learned where the worker looks for it."""
    draw = random.Random(1)
    learner = Learner(ARMS, [1 / (1 + number) for number in range(9)], Goal(quality=0.97))
    for _ in range(LABELS):
        at = draw.randrange(len(NOTES) - 400)
        text = NOTES[at : at + draw.randrange(50, 400)]
        learner.take(Example(features(text), {arm: float(draw.random() < 0.8) for arm in ARMS}))
    fitted = learner.work().done()
    assert fitted.model.ready
    standing = ScopeStanding("bench", LABELS, 500, True, (), {}, {})
    SqliteLearned(place / "learned.sqlite").put([standing], {"bench": fitted.model}, 1)


def decisions(worker: Worker, body: bytes, rounds: int) -> float:
    """Of a call that has arrived, again and again."""
    gw = worker.gateway
    bench = Bench(worker, CHAT, body, OPENAI_ANSWER, SDK, rounds)
    call = new_call(bench.request(), gw)
    arrive(call, gw)
    router, best = gw.router, float("inf")
    assert router is not None
    assert call.notes["route_why"] in ("learned", "explored")
    for _ in range(rounds):
        began = time.thread_time_ns()
        for _ in range(BATCH):
            router.plan(call, gw)
        best = min(best, (time.thread_time_ns() - began) / BATCH / 1e3)
    gw.journal.append(call, call.slot)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.micro_learned", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    rounds, worst = parser.parse_args().rounds, 0.0
    with ExitStack() as stack:
        workers = []
        for config in (rule("priority"), rule("learned", learn={"id": "bench"})):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            worker = stack.enter_context(worker_in(place, limits=config))
            workers.append((place, worker))
        teach(workers[1][0] / "state")
        assert workers[1][1].crossroads._learned is not None
        workers[1][1].crossroads.tick()
        assert "bench" in workers[1][1].crossroads._learned.models
        for length in LENGTHS:
            body = compact(chat((NOTES * 9)[:length]))
            times: list[list[float]] = [[], []]
            decision = decisions(workers[1][1], body, rounds)
            worst = max(worst, decision)
            benches = [Bench(worker, CHAT, body, OPENAI_ANSWER, SDK, rounds) for _, worker in workers]
            works = [bench.server(Wire(bench.answer_head, [bench.answer], len(bench.answer))) for bench in benches]
            for _ in range(rounds):
                for bench, work, found in zip(benches, works, times, strict=True):
                    requests = [bench.request() for _ in range(BATCH)]
                    began = time.thread_time_ns()
                    for request in requests:
                        work(request)
                    found.append((time.thread_time_ns() - began) / BATCH / 1e3)
            more = min(times[1]) - min(times[0])
            print(f"  prompt of {length:5} characters: a decision {decision:6.1f} us, a call {more:6.1f} us more")
    print(f"bar {BOUND_US:.0f} us: {'holds' if worst <= BOUND_US else 'MISSED'}")
    return int(worst > BOUND_US)


if __name__ == "__main__":
    sys.exit(main())
