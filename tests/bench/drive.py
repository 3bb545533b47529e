"""The path of a call without sockets: real connections, pipeline and pool over transports in memory.

    python -m tests.bench.drive              # function calls, instructions and CPU per call
    python -m tests.bench.drive --profile    # where they are spent

Function calls are the same in every run, however busy the machine is; so are, nearly, instructions, which valgrind
counts.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import uvloop

from gateway.app import Worker
from gateway.net.connection import ClientConnection, State
from gateway.net.origin import UpstreamConnection
from gateway.worker import freeze
from tests.bench.bodies import bodies
from tests.bench.micro import EVENTS, OPENAI_ANSWER, SDK, response, worker_in
from tests.bench.targets import CHAT, GUARDED, LIMITED, RESILIENT

TWO = {"model": "gpt-*", "to": ["gpt-4o-mini", "gpt-4.1-mini"]}
CONFIGS: Mapping[str, Mapping[str, Any]] = {
    "limited": LIMITED,
    "guarded": GUARDED,
    "resilient": RESILIENT,
    "weight": {"routes": [{**TWO, "by": "weight"}], "bulkheads": {"agents": {"max": 50}}},
    "latency": {"routes": [{**TWO, "by": "latency"}], "bulkheads": {"agents": {"max": 50}}},
}  # two targets have breakers, too
SHAPES = ("json", "json_new", "burst", "paced", *CONFIGS)
WARM = 300
CALLS = 2000


class Pipe:
    """A transport in memory: what is written goes to `sink`."""

    def __init__(self, sink: Callable[[bytes], None], port: int) -> None:
        self.write = sink
        self._peer = ("127.0.0.1", port)

    def get_extra_info(self, name: str) -> Any:
        return self._peer if name == "peername" else self

    def fileno(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int, low: int) -> None: ...
    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...
    def abort(self) -> None:
        raise SystemExit("a connection was cut")

    def close(self) -> None: ...


class Quiet:
    """The poll of an upstream's socket: nothing has happened to it."""

    def register(self, fd: int, events: int) -> None: ...
    def poll(self, timeout: int) -> list[tuple[int, int]]:
        return []


class Drive:
    """`count` calls, one after the other, on one kept connection to one kept upstream."""

    def __init__(self, worker: Worker, request: Callable[[int], bytes], pieces: Sequence[bytes]) -> None:
        self.worker, self.loop = worker, worker.loop
        worker._timer.cancel()  # ticks go by the clock: under valgrind they would count for more than the calls
        self.request, self.pieces = request, pieces
        self.done = self.left = 0
        self.ended: asyncio.Future[None]
        self.client = ClientConnection(worker.server)
        self.client.connection_made(Pipe(self.answered, 40_000))  # type: ignore[arg-type]
        origin = worker.pools.origins[worker.gateway.specs["openai"].target]
        origin.named = False
        origin.tls = None
        self.upstream = UpstreamConnection(origin, self.loop)
        self.upstream._poll = Quiet()  # type: ignore[assignment]
        self.upstream.connection_made(Pipe(self.asked, 0))  # type: ignore[arg-type]
        self.upstream.used = True
        worker.pools.give_back(self.upstream)

    def run(self, count: int) -> None:
        self.left = count
        self.ended = self.loop.create_future()
        self.loop.call_soon(self.next)
        self.loop.run_until_complete(self.ended)

    def next(self) -> None:
        if not self.left:
            self.ended.set_result(None)
            return
        self.left -= 1
        self.done += 1
        self.client.data_received(self.request(self.done))

    def asked(self, data: bytes) -> None:
        self.coming = iter(self.pieces)
        self.loop.call_soon(self.come)

    def come(self, turns: int = 0) -> None:
        """The next piece, once what the one before it set off is over."""
        if turns:
            self.loop.call_soon(self.come, turns - 1)
        elif (piece := next(self.coming, None)) is not None:
            self.upstream.data_received(piece)
            self.loop.call_soon(self.come, 3)

    def answered(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 ") and not data.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"the gateway answered {data!r}")
        if self.client.state is State.BUSY and (data.endswith(b"0\r\n\r\n") or b"content-length" in data):
            self.loop.call_soon(self.next)


def drive_of(worker: Worker, shape: str) -> Drive:
    made = bodies()
    name = "chat" if shape in ("json", "limited") else "chat_stream" if shape in ("burst", "paced") else "chat_new"
    body = made[name]
    lines = [f"POST {CHAT} HTTP/1.1", "host: 127.0.0.1:8787", "content-type: application/json", *SDK]
    if shape == "limited":
        lines.append("x-tollgate-run-id: bench")
    head = "\r\n".join([*lines, f"content-length: {len(body)}"]).encode() + b"\r\n\r\n"
    pieces = [response(OPENAI_ANSWER) + OPENAI_ANSWER]
    if name == "chat_stream":
        start = response(b"", "text/event-stream").replace(b"content-length: 0", b"transfer-encoding: chunked")
        chunks = [b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS]
        chunks[-1] += b"0\r\n\r\n"
        pieces = [start, *chunks] if shape == "paced" else [start + b"".join(chunks)]
    return Drive(worker, lambda serial: head + body.replace(b"@" * 8, b"%08x" % serial), pieces)


def function_calls(drive: Drive, count: int) -> tuple[float, float]:
    """Of Python and of C functions, per call of the gateway."""
    found = [0, 0]

    def count_one(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            found[0] += 1
        elif event == "c_call":
            found[1] += 1

    sys.setprofile(count_one)
    drive.run(count)
    sys.setprofile(None)
    return found[0] / count, found[1] / count


def cpu(drive: Drive, count: int, rounds: int = 7) -> float:
    """µs per call in the quietest round."""
    times = []
    for _ in range(rounds):
        began = time.thread_time_ns()
        drive.run(count)
        times.append((time.thread_time_ns() - began) / count / 1e3)
    return min(times)


def profile(drive: Drive, count: int, order: str) -> None:
    profiler = cProfile.Profile()
    profiler.enable()
    drive.run(count)
    profiler.disable()
    pstats.Stats(profiler).sort_stats(order).print_stats(90)


def instructions(shape: str, calls: int) -> float:
    """In user mode, in thousands per call: the difference of a long and a short drive under valgrind."""
    found = []
    for count in (calls // 4, calls):
        words = [sys.executable, "-m", "tests.bench.drive", "--only", shape, "--bare", str(count)]
        tool = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
        output = subprocess.run([*tool, *words], capture_output=True, text=True, check=True).stderr
        number = re.search(r"I +refs: +([0-9,]+)", output)
        assert number is not None, output
        found.append(int(number[1].replace(",", "")))
    return (found[1] - found[0]) / (calls - calls // 4) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.drive", description=__doc__)
    parser.add_argument("--only", choices=SHAPES, action="append")
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--profile", nargs="?", const="tottime", help="order by tottime, cumtime or calls")
    parser.add_argument("--bare", type=int, help="so many calls and nothing else")
    args = parser.parse_args()
    for shape in args.only or SHAPES:
        count = args.calls if shape not in ("burst", "paced") else args.calls // 4
        config = CONFIGS.get(shape, {})
        with tempfile.TemporaryDirectory() as directory, worker_in(Path(directory), uvloop.new_event_loop, config) as w:
            drive = drive_of(w, shape)
            freeze()
            if args.bare is not None:
                drive.run(args.bare)
                continue
            drive.run(WARM)
            if args.profile:
                profile(drive, count, args.profile)
                continue
            python, native = function_calls(drive, min(count, 500))
            gc.collect()
            line = f"{shape:10}{python:8.1f} Python and {native:6.1f} C functions{cpu(drive, count):9.1f} µs"
            if shutil.which("valgrind"):
                line += f"{instructions(shape, count // 2):9.1f} k instructions"
            print(line, flush=True)


if __name__ == "__main__":
    main()
