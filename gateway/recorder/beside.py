"""One daemon thread for work that takes its time: what is submitted is run in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Beside:
    """The thread begins with the first work. Nobody waits for it: at the end of the process it is gone."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._works: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, work: Callable[[], None]) -> None:
        self._works.put(work)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """No more, once what is under way has ended."""
        self._works.put(None)

    def _run(self) -> None:
        while (work := self._works.get()) is not None:
            work()
