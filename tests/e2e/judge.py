"""An upstream that keeps its own books, and a crowd of clients that behaves badly: the judges of every budget.

The upstream bills what it produced, whoever was still there to read it, in its own tokens and whole pico-USD. It knows
nothing of the gateway's counting: what it says was spent is the truth that a budget is held against.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

import msgspec

INPUT_PICO, OUTPUT_PICO = 1_000_000, 4_000_000  # pico-USD per token: 1 and 4 USD per million
MODEL = "judge-1"
PRICES = {"models": {MODEL: {"input": 1, "output": 4}}}
PIECE = 8  # tokens per event of a stream


@dataclass
class Bill:
    """What one account (the `user` of a request) really cost."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    failed: int = 0  # answered 503, not billed

    @property
    def pico(self) -> int:
        return self.tokens_in * INPUT_PICO + self.tokens_out * OUTPUT_PICO


def prompt_tokens(body: dict[str, Any]) -> int:
    """A quarter of the characters, and four for each message: how such providers count English, about."""
    texts = [str(message.get("content", "")) for message in body["messages"]]
    return sum(len(text) // 4 + 4 for text in texts) + 3


class Judge:
    """`async with Judge(seed) as judge`: serves /v1/chat/completions on `judge.url`, JSON and streams."""

    def __init__(self, seed: int = 0, *, delay: float = 0.004, faults: float = 0.02) -> None:
        self.bills: dict[str, Bill] = defaultdict(Bill)
        self.rng = random.Random(seed)
        self.delay, self.faults = delay, faults
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=2048)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def quiet(self) -> None:
        """Until nothing is being produced any more."""
        while self.tasks:
            await asyncio.sleep(0.01)

    def output(self, body: dict[str, Any]) -> int:
        """Tokens that this answer will have: anything up to its ceiling, often all of it."""
        ceiling = int(body.get("max_tokens") or body.get("max_completion_tokens") or 400)
        return ceiling if self.rng.random() < 0.3 else self.rng.randint(1, ceiling)


class _Connection(asyncio.Protocol):
    def __init__(self, judge: Judge) -> None:
        self.judge, self.data = judge, b""
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, gap, rest = self.data.partition(b"\r\n\r\n")
        if not gap:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if len(rest) < length:
            return
        self.data = rest[length:]
        task = asyncio.get_running_loop().create_task(self.answer(msgspec.json.decode(rest[:length])))
        self.judge.tasks.add(task)
        task.add_done_callback(self.judge.tasks.discard)

    async def answer(self, body: dict[str, Any]) -> None:
        judge = self.judge
        bill = judge.bills[body.get("user", "")]
        await asyncio.sleep(judge.rng.random() * judge.delay)
        if judge.rng.random() < judge.faults:
            bill.failed += 1
            self.send(503, b'{"error":{"message":"overloaded","type":"server_error"}}')
            return
        taken, produced = prompt_tokens(body), judge.output(body)
        bill.calls += 1
        bill.tokens_in += taken
        if body.get("stream"):
            await self.stream(body, bill, taken, produced)
            return
        bill.tokens_out += produced
        self.send(200, json.dumps(document("x " * produced, taken, produced)).encode())

    async def stream(self, body: dict[str, Any], bill: Bill, taken: int, produced: int) -> None:
        """Events of a few tokens; each is billed when it is made. Who leaves is noticed, and no more is made."""
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        sent = 0
        while sent < produced and not self.transport.is_closing():
            piece = min(PIECE, produced - sent)
            sent += piece
            bill.tokens_out += piece
            self.event({"choices": [{"index": 0, "delta": {"content": "x " * piece}, "finish_reason": None}]})
            if self.judge.rng.random() < 0.2:
                await asyncio.sleep(self.judge.rng.random() * self.judge.delay)
        if self.transport.is_closing():
            return
        self.event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            self.event({"choices": [], "usage": usage(taken, sent)})
        self.chunk(b"data: [DONE]\n\n")
        self.transport.write(b"0\r\n\r\n")

    def event(self, fields: dict[str, Any]) -> None:
        shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
        self.chunk(b"data: " + json.dumps({**shared, **fields}).encode() + b"\n\n")

    def chunk(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def send(self, status: int, body: bytes) -> None:
        if not self.transport.is_closing():
            head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            self.transport.write(head % (status, len(body)) + body)


def usage(taken: int, produced: int) -> dict[str, int]:
    return {"prompt_tokens": taken, "completion_tokens": produced, "total_tokens": taken + produced}


def document(text: str, taken: int, produced: int) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage(taken, produced),
    }


@dataclass
class Tally:
    """What the clients of one account saw."""

    statuses: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    codes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    left: int = 0
    broken: int = 0  # connections cut under them
    unexpected: list[str] = field(default_factory=list)


class Crowd:
    """Many clients at once on one run. Each makes calls until it is refused, leaves early or has had enough."""

    def __init__(self, seed: int, ports: list[int], prefix: str, account: str) -> None:
        self.rng = random.Random(f"crowd/{seed}")
        self.ports, self.prefix, self.account = ports, prefix, account
        self.tally = Tally()
        self.give_ceiling = True
        self.headers = ""

    async def run(self, clients: int, calls: int = 1, *, midway: Callable[[], None] | None = None) -> Tally:
        if midway is not None:
            asyncio.get_running_loop().call_later(0.05 + self.rng.random() * 0.1, midway)
        await asyncio.gather(*(self.client(number, calls) for number in range(clients)))
        return self.tally

    async def client(self, number: int, calls: int) -> None:
        rng = random.Random(f"{self.rng.random()}/{number}")
        for _ in range(calls):
            for attempt in range(4):
                status = await self.once(rng)
                if status not in (0, 429, 500, 502, 503, 504):
                    break
                await asyncio.sleep(0.02 * (attempt + 1))
            if status == 402:
                return

    def body(self, rng: random.Random) -> bytes:
        text = " ".join(rng.choice(("budget", "agent", "tool", "gateway", "plan")) for _ in range(rng.randint(3, 60)))
        asked: dict[str, Any] = {
            "model": MODEL,
            "messages": [{"role": "user", "content": text}],
            "user": self.account,
            "stream": rng.random() < 0.4,
        }
        if self.give_ceiling:
            asked[rng.choice(("max_tokens", "max_completion_tokens"))] = rng.choice((16, 64, 200))
        return json.dumps(asked).encode()

    async def once(self, rng: random.Random) -> int:
        """One request on one connection; 0 where the connection broke. Some leave before they have the answer."""
        body = self.body(rng)
        patience = rng.random() * 0.03 if rng.random() < 0.08 else None
        writer = None
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", rng.choice(self.ports))
            head = f"POST {self.prefix}/v1/chat/completions HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n"
            head += f"{self.headers}connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            if patience is None:
                raw = await asyncio.wait_for(reader.read(-1), 60)
            else:
                try:
                    raw = await asyncio.wait_for(reader.read(-1), patience)
                except TimeoutError:
                    self.tally.left += 1
                    return 299
            return self.seen(raw)
        except OSError:
            self.tally.broken += 1
            return 0
        finally:
            if writer is not None:
                writer.transport.abort()

    def seen(self, raw: bytes) -> int:
        if not raw.startswith(b"HTTP/1.1 "):
            self.tally.broken += 1
            return 0
        status = int(raw[9:12])
        self.tally.statuses[status] += 1
        if status >= 400:
            _, _, text = raw.partition(b"\r\n\r\n")
            try:
                error = json.loads(text)["error"]
                self.tally.codes[str(error.get("code"))] += 1
            except (ValueError, KeyError, TypeError):
                self.tally.unexpected.append(text[:200].decode("latin-1"))
        return status
