from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest

from gateway.config.schema import Alias, Config, Journal, Upstream
from gateway.process.control import (
    ChildArguments,
    Configure,
    Configured,
    Consumed,
    Control,
    Drain,
    LameDuck,
    Message,
    Ready,
    Stats,
    Status,
    Stop,
    Unpacker,
    WorkerStatus,
    child_arguments,
    pack,
    receive_configure,
)

CONFIG = Config(
    workers=2,
    upstreams={"a": Upstream(dialect="openai", url="http://127.0.0.1:1", key="sk-secret")},
    aliases={"small": "gpt-4o-mini", "big": Alias(model="gpt-5", upstream="a")},
    journal=Journal(required=True),
)
CONFIGURE = Configure(CONFIG, 3, "/s", "/s/inflight", "/s/journal", "127.0.0.1:8787", "127.0.0.1:8788", 1)
MESSAGES: list[Message] = [
    CONFIGURE,
    LameDuck(),
    Drain(30),
    Stop(),
    Status(1, False, (WorkerStatus(0, 7, True, 2),), 3, 4, False, 5, "bad", ("workers",)),
    Ready(),
    Configured(3, False, "no"),
    Consumed({"w0-00000001.tgj": 64}),
    Stats({"rss": 1, "x": "y"}),
]


@pytest.mark.parametrize("size", [1, 3, 7, 10**6])
def test_messages_come_out_as_they_went_in_whatever_the_pieces(size: int) -> None:
    stream = b"".join(map(pack, MESSAGES))
    unpacker, found = Unpacker(), []
    for at in range(0, len(stream), size):
        found += list(unpacker.feed(stream[at : at + size]))
    assert found == MESSAGES


@pytest.mark.parametrize(
    "data", [b"\xff\xff\xff\xff", b"\x01\x00\x00\x00\xc1", pack(Ready())[:4] + b"\x81\xa4type\xa4What"]
)
def test_what_is_no_message_is_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        list(Unpacker().feed(data.ljust(60, b"\0")))


class End:
    def __init__(self) -> None:
        self.got: asyncio.Queue[Message] = asyncio.Queue()
        self.gone = asyncio.Event()

    async def open(self, channel: Any) -> Control:
        return await Control.open(channel, self.got.put_nowait, self.gone.set)


async def test_both_ends_talk_and_notice_the_end() -> None:
    ours, theirs = socket.socketpair()
    parent, child = End(), End()
    up, down = await parent.open(ours), await child.open(theirs.detach())
    for message in MESSAGES[:4]:
        up.send(message)
        assert await child.got.get() == message
    down.send(Ready())
    assert await parent.got.get() == Ready()
    up.close()
    await child.gone.wait()
    down.send(Ready())  # to nobody
    down.close()
    await parent.gone.wait()


async def test_a_large_configuration_passes() -> None:
    ours, theirs = socket.socketpair()
    parent, child = End(), End()
    up, down = await parent.open(ours), await child.open(theirs.detach())
    large = msgspec.structs.replace(CONFIGURE, config=Config(aliases={f"alias-{n}": "m" * 100 for n in range(20_000)}))
    up.send(large)
    up.send(Stop())
    assert await child.got.get() == large
    assert await child.got.get() == Stop()
    up.close()
    down.close()
    await asyncio.gather(parent.gone.wait(), child.gone.wait())


async def test_the_first_message_may_be_read_without_a_loop() -> None:
    ours, theirs = socket.socketpair()
    ours.sendall(pack(CONFIGURE) + pack(Drain(5)))
    arguments = ChildArguments(theirs.detach(), (), 1)
    assert receive_configure(arguments) == CONFIGURE
    child = End()
    control = await child.open(arguments.control)
    assert await child.got.get() == Drain(5)
    ours.close()
    await child.gone.wait()
    control.close()


def test_a_child_without_a_supervisor() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(pack(CONFIGURE)[:50])
        ours.close()
        with pytest.raises(EOFError):
            receive_configure(ChildArguments(theirs.fileno(), (), 0))


def test_anything_else_first_is_an_error() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(pack(Ready()))
        with pytest.raises(ValueError, match="Configure"):
            receive_configure(ChildArguments(theirs.fileno(), (), 0))


def test_arguments() -> None:
    argv = ["--control", "5", "--listen", "6", "--listen", "7", "--index", "2"]
    assert child_arguments(argv) == ChildArguments(5, (6, 7), 2)
    assert child_arguments(["--control", "5"]) == ChildArguments(5, (), -1)


@pytest.mark.parametrize("argv", [[], ["--help"], ["--control"], ["--control", "x"], ["--listen", "1"]])
def test_arguments_of_somebody_else(argv: list[str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        child_arguments(argv)


def test_readiness() -> None:
    up, down = WorkerStatus(0, 7, True, 0), WorkerStatus(1, 0, False, 3)
    status = Status(1, False, (up, down), 1, 1, True, 0)
    assert status.ready
    assert not msgspec.structs.replace(status, draining=True).ready
    assert not msgspec.structs.replace(status, workers=(down,)).ready
    assert not msgspec.structs.replace(status, workers=()).ready


def test_no_secret_shows_in_a_message() -> None:
    assert "sk-secret" not in repr(CONFIGURE)
