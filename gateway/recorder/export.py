"""A thread that hands telemetry to a remote collector, so that nothing else ever waits for one.

Rules
1. The queue is bounded by weight (spans, data points) and by the bytes of content in it; what does not fit is dropped
   there and then, and counted. So is a batch: collectors refuse a large one whole, many of them beyond 4 MiB.
2. A batch that could not be delivered is dropped and counted: the exporter has tried again already.
3. `close` takes no longer than it was given. The stock shutdown waits up to half a minute for a dead collector, so the
   thread is a daemon that is told, waited for, and left.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from gateway.recorder.drops import Drops

Item = TypeVar("Item")
QUEUE_BYTES = 64 << 20
BATCH_BYTES = 1 << 20  # as text in attributes it may be three times as long; a single item may have more
_GRACE = 0.5  # seconds kept back for the exporter to give up


class Exporting(Generic[Item]):
    """Batches items of a signal and gives them to `send` in a thread of its own.

    `send` returns how many units could not be delivered. `abort` makes a `send` in progress give up soon; `idle` is
    called in the thread before each look at the queue and may `offer` more.
    """

    def __init__(
        self,
        signal: str,
        send: Callable[[Sequence[Item]], int],
        abort: Callable[[], None],
        drops: Drops,
        *,
        limit: int,
        batch: int,
        interval: float,
        idle: Callable[[], None] = lambda: None,
    ) -> None:
        self._signal = signal
        self._send = send
        self._abort = abort
        self._drops = drops
        self._limit = limit
        self._batch = batch
        self._interval = interval
        self._idle = idle
        self._queue: deque[tuple[Item, int, int]] = deque()
        self._weight = 0
        self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"otlp-{signal}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, item: Item, weight: int, content: int = 0) -> bool:
        """Queue an item of `weight` units with so many bytes of content; False if it was dropped. Never waits."""
        with self._changed:
            if self._weight + weight > self._limit or self._bytes + content > QUEUE_BYTES:
                self._drops.add(self._signal, "queue_full", weight)
                return False
            self._queue.append((item, weight, content))
            self._weight += weight
            self._bytes += content
            if self._full():
                self._changed.notify()
        return True

    def close(self, timeout: float) -> None:
        """Deliver what is queued within `timeout` seconds; drop and count the rest."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(max(0.0, timeout - min(_GRACE, timeout / 4)))
        with self._changed:
            left, self._weight, self._bytes = self._weight, 0, 0
            self._queue.clear()
        if left:
            self._drops.add(self._signal, "shutdown", left)
        self._abort()
        if self._thread.is_alive():
            self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while True:
            self._idle()
            with self._changed:
                if not self._stopping and not self._full():
                    self._changed.wait(self._interval)
                batch, weight = self._take()
                if not batch and self._stopping:
                    return
            if batch and (failed := min(weight, self._send(batch))):
                self._drops.add(self._signal, "export_failed", failed)

    def _full(self) -> bool:
        return self._weight >= self._batch or self._bytes >= BATCH_BYTES

    def _take(self) -> tuple[list[Item], int]:
        batch: list[Item] = []
        total = held = 0
        while self._queue and total < self._batch and not (batch and held + self._queue[0][2] > BATCH_BYTES):
            item, weight, content = self._queue.popleft()
            batch.append(item)
            total += weight
            held += content
        self._weight -= total
        self._bytes -= held
        return batch, total
