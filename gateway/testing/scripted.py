"""An upstream that misbehaves as each request asks: the header `x-script` names what it does.

    with Background(ScriptedUpstream({"reset": [Send(answer(length=9)), Reset()]})) as up: ...

The acts are those of `gateway.testing.faults`, played after the request was read; where they come to their end
without a cut, the connection is kept and the next request read (as after `Again`). Requests are kept byte for byte.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, TypeVar

from gateway.testing.faults import FaultUpstream, Receive, Script, _request

T = TypeVar("T")
_NAME = re.compile(rb"\r\nx-script: *([^\r]*)", re.I)


@dataclass(slots=True)
class Seen:
    """One request, and when the peer left while its script still ran (monotonic seconds; 0: it stayed)."""

    script: str
    raw: bytes
    connection: int
    left_at: float = 0.0
    done: bool = False


class ScriptedUpstream(FaultUpstream):
    """`default` is played for requests without a (known) name. A script may be a function of the request's bytes."""

    def __init__(self, scripts: Mapping[str, Script | Callable[[bytes], Script]], default: str = "") -> None:
        super().__init__([])
        self.named = dict(scripts)
        self.default = default or next(iter(scripts))
        self.seen: list[Seen] = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        number, self.connections = self.connections, self.connections + 1
        seen: Seen | None = None
        try:
            while True:
                seen = None
                raw = await _request(reader, body=True)
                match = _NAME.search(raw.partition(b"\r\n\r\n")[0])
                name = match[1].decode() if match else ""
                seen = Seen(name, raw, number)
                self.received.append(raw)
                self.seen.append(seen)
                script = self.named.get(name, self.named[self.default])
                acts = [act for act in (script(raw) if callable(script) else script) if not isinstance(act, Receive)]
                goes_on = not acts or await self._play(acts, reader, writer) or not _cuts(acts)
                seen.done = True
                if not goes_on:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            if seen is not None:
                seen.left_at = time.monotonic()
        except asyncio.CancelledError:
            pass  # the server is shutting down
        finally:
            writer.close()

    def of(self, script: str) -> list[Seen]:
        """The requests that asked for this script, oldest first."""
        return [seen for seen in self.seen if seen.script == script]


def _cuts(acts: Script) -> bool:
    return type(acts[-1]).__name__ in ("Close", "Reset", "HalfClose")


class Background(Generic[T]):
    """Runs an asynchronous context manager on a loop in a thread of its own, for synchronous tests."""

    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="background", daemon=True)

    def __enter__(self) -> T:
        self._thread.start()
        running: T = self._call(self._manager.__aenter__())
        return running

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._call(self._manager.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
