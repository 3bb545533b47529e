from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import msgspec
import pytest

from gateway.process.child import BACKOFF_LIMIT, BACKOFF_SECONDS, Child, cause, until_gone
from gateway.process.control import Drain, Message, Stop


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit status 0"), (3, "exit status 3"), (-9, "SIGKILL"), (-11, "SIGSEGV"), (-99, "signal 99")],
)
def test_causes(code: int, words: str) -> None:
    assert cause(code) == words


class Watched:
    def __init__(self, *command: str, keep: Sequence[int] = ()) -> None:
        self.exits: asyncio.Queue[tuple[int, int]] = asyncio.Queue()
        self.messages: list[Message] = []
        self.child = Child("worker 0", 0, command, [], keep=keep, on_message=self.received, on_exit=self.exited)

    def received(self, child: Child, message: Message) -> None:
        self.messages.append(message)

    def exited(self, child: Child, code: int, lived: float, pid: int) -> None:
        self.exits.put_nowait((code, pid))


async def test_the_end_of_a_process_is_noticed_and_delays_the_next() -> None:
    watched = Watched(sys.executable, "-c", "raise SystemExit(5)")
    child = watched.child
    delays = []
    for _ in range(8):
        delays.append(child.delay)
        await child.start(list)
        pid = child.pid
        assert await watched.exits.get() == (5, pid)
        await child.exited()
        assert child.pid == 0
        child.failures += 1  # as if it had died more often
    assert delays[0] == 0
    assert delays[1] == BACKOFF_SECONDS * 2
    assert delays == sorted(delays)
    assert delays[-1] == BACKOFF_LIMIT
    assert child.status.restarts == 7


async def test_a_child_is_killed_and_what_is_sent_to_the_dead_goes_nowhere() -> None:
    watched = Watched(sys.executable, "-c", "import time; time.sleep(60)")
    await watched.child.start(lambda: [Stop()])
    watched.child.kill()
    assert (await watched.exits.get())[0] == -9
    watched.child.send(Stop())
    watched.child.kill()


async def test_its_first_messages_are_those_of_the_moment_when_it_can_hear_them() -> None:
    """A configuration that is reloaded while a process starts is the one it starts with."""
    read, write = os.pipe()
    hears = f"import os, socket, sys; os.write({write}, socket.socket(fileno=int(sys.argv[2])).recv(99))"
    watched = Watched(sys.executable, "-c", hears, keep=[write])
    said = [Drain(1)]
    starting = asyncio.ensure_future(watched.child.start(lambda: said))
    await asyncio.sleep(0)
    assert (watched.child.coming, watched.child.pid) == (True, 0)
    said[0] = Drain(2)
    await starting
    assert not watched.child.coming
    assert (await watched.exits.get())[0] == 0
    assert msgspec.msgpack.decode(os.read(read, 99)[4:])["seconds"] == 2
    os.close(read)
    os.close(write)


async def test_a_command_that_does_not_exist() -> None:
    watched = Watched("/nonexistent/program")
    with pytest.raises(FileNotFoundError):
        await watched.child.start(list)
    assert watched.child.pid == 0
    await watched.child.exited()


async def test_who_does_not_end_is_killed() -> None:
    stubborn = Watched(sys.executable, "-c", "import time; time.sleep(60)")
    await stubborn.child.start(list)
    await until_gone([stubborn.child], 0.01, asyncio.Event())
    assert stubborn.exits.get_nowait()[0] == -9


async def test_inherited_descriptors_stay_open_in_the_child() -> None:
    read, write = os.pipe()
    watched = Watched(sys.executable, "-c", "import time; time.sleep(60)", keep=[write])
    await watched.child.start(list)
    os.close(write)
    os.set_blocking(read, False)
    with pytest.raises(BlockingIOError):
        os.read(read, 1)
    watched.child.kill()
    await watched.exits.get()
    assert os.read(read, 1) == b""
    os.close(read)
