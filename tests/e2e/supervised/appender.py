"""A process that writes calls as fast as it can and says so: `appender.py <journal> <tables> <seed> [full]`.

Each line on its standard output: `+id` once begin has returned, `=id` once append has. Up to 16 calls are in flight;
segments are small, so that it is often killed in a rotation.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path

from gateway.call import Asked, Call, Request, Route, Trace, Who
from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter

ROUTE = Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions")


def main() -> None:
    journal, tables, seed = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    rng = random.Random(seed)
    settings = Journal(segment_bytes=65_536)
    writer = JournalWriter(journal, "w0", settings, worker=0, inflight=tables, capture="full")
    running: list[tuple[Call, int]] = []
    number = 0
    while True:
        if len(running) < 16 and rng.random() < 0.5:
            body = b"x" * rng.choice((10, 200, 9000))
            request = Request(b"POST", b"/v1/chat/completions", [], body)
            now = time.monotonic_ns()
            call = Call(f"{seed}-{number}", request, ROUTE, Asked(), Who(), Trace(), time.time_ns(), now, status=200)
            number += 1
            running.append((call, writer.begin(call)))
            os.write(1, b"+%s\n" % call.id.encode())
        elif running:
            call, slot = running.pop(rng.randrange(len(running)))
            call.ended = time.monotonic_ns()
            writer.append(call, slot)
            os.write(1, b"=%s\n" % call.id.encode())


if __name__ == "__main__":
    main()
