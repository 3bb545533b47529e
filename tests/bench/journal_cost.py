"""What the journal costs: microseconds per begin and append in the worker, records per second in the recorder.

python tests/bench/journal_cost.py [records]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gateway.call import Answer, Asked, Attempt, Call, Money, Request, Route, Target, Trace, Usage, UsageSource, Who
from gateway.config.schema import Journal
from gateway.journal.append import JournalWriter
from gateway.journal.convert import Converter
from gateway.journal.read import JournalReader
from gateway.journal.record import encode
from gateway.journal.segment import frame

ROUNDS = 5


def typical(number: int) -> Call:
    """A small JSON call of an SDK, priced, with a run."""
    target = Target("openai", "openai", "api.openai.com", 443, True, b"")
    headers = [
        (b"Host", b"localhost:8787"),
        (b"Accept", b"application/json"),
        (b"Content-Type", b"application/json"),
        (b"User-Agent", b"OpenAI/Python 3.3.1"),
        (b"X-Stainless-Lang", b"python"),
        (b"x-stainless-retry-count", b"0"),
        (b"Authorization", b"Bearer key"),
    ]
    began = 10**9
    return Call(
        f"01J9Z{number:021d}",
        Request(b"POST", b"/v1/chat/completions", headers, b"x" * 1000, "127.0.0.1:5555"),
        Route("/v1/chat/completions", "openai_chat", "chat", "openai", b"/v1/chat/completions"),
        Asked(model="gpt-4o-mini", params={"temperature": 0.5, "max_tokens": 100}),
        Who(agent="coder", agent_source="header", run_id="run-abcdef0123456789", run_confidence=0.95, step=3),
        Trace("a" * 32, "b" * 16, "c" * 16),
        time.time_ns(),
        began,
        attempts=[Attempt(target, began + 50_000, began + 900_000, 200, True)],
        answer=Answer(
            model="gpt-4o-mini-2024-07-18",
            response_id="chatcmpl-abcdefghij",
            usage=Usage(100, 20, 10),
            usage_source=UsageSource.PROVIDER,
            finish_reasons=("stop",),
        ),
        money=Money(123_456, {"input": 100_000, "output": 23_456}, "2026-11-01", "priced"),
        status=200,
        first_byte=began + 900_000,
        upstream_last_byte=began + 895_000,
        ended=began + 950_000,
        response_bytes=700,
    )


def cost(work: Callable[[Call], object], calls: list[Call]) -> float:
    """Median over rounds, in microseconds per call."""
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for call in calls:
            work(call)
        rounds.append((time.perf_counter() - start) / len(calls) * 1e6)
    return statistics.median(rounds)


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    calls = [typical(number) for number in range(count)]
    with tempfile.TemporaryDirectory() as place:
        journal, tables = Path(place) / "journal", Path(place) / "inflight"
        journal.mkdir()
        tables.mkdir()
        writer = JournalWriter(journal, "w0", Journal(), worker=0, inflight=tables)
        converter = Converter(0)
        record = converter.record_of(calls[0])
        print(f"record      {len(frame(encode(record), 0))} bytes")
        print(f"begin       {cost(lambda call: writer.table.clear(writer.begin(call)), calls):.2f} us, with its end")
        print(f"convert     {cost(converter.record_of, calls):.2f} us")
        print(f"encode      {cost(lambda _: frame(encode(record), 0), calls):.2f} us, with checksum")
        print(f"append      {cost(lambda call: writer.append(call, -1), calls):.2f} us, all of it with the write")
        writer.close()
        reader, start, read = JournalReader(journal), time.perf_counter(), 0
        while batch := reader.read():
            read += len(batch)
        print(f"read        {read / (time.perf_counter() - start):,.0f} records/s")
        reader.close()


if __name__ == "__main__":
    main()
