"""How workers, recorder and matcher talk: a length (u32, little-endian) and a msgpack array tagged by its kind.

To the matcher: Ask (answered by Told), Teach (not answered), Report (Reported), Say (Said), Forget (Said).
Over a Unix socket in the state directory, which only the user of the gateway may open (mode 600).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.frames import Frames, framed
from gateway.policy.cached import Chosen
from gateway.ports import Feedback, Inquiry, Lesson, Match, MatcherState, Noted

LIMIT = 16 * 1024 * 1024  # bytes of a message


class Ask(Struct, tag="ask", array_like=True, frozen=True):
    number: int
    inquiry: Inquiry
    until: int  # monotonic ns, the same clock for all processes of a machine: nobody waits for it any more


class Told(Struct, tag="told", array_like=True, frozen=True):
    number: int
    match: Match


class Teach(Struct, tag="teach", array_like=True, frozen=True):
    lesson: Lesson


class Report(Struct, tag="report", array_like=True, frozen=True):
    number: int


class Reported(Struct, tag="reported", array_like=True, frozen=True):
    number: int
    state: MatcherState


class Say(Struct, tag="say", array_like=True, frozen=True):
    number: int
    feedback: Feedback


class Forget(Struct, tag="forget", array_like=True, frozen=True):
    """Stored answers were cleared: their questions lead nowhere."""

    number: int
    chosen: Chosen


class Said(Struct, tag="said", array_like=True, frozen=True):
    number: int
    learned: Noted


ToMatcher = Ask | Teach | Report | Say | Forget
FromMatcher = Told | Reported | Said
_encode = msgspec.msgpack.Encoder().encode
to_matcher: msgspec.msgpack.Decoder[ToMatcher] = msgspec.msgpack.Decoder(Ask | Teach | Report | Say | Forget)
from_matcher: msgspec.msgpack.Decoder[FromMatcher] = msgspec.msgpack.Decoder(Told | Reported | Said)


def pack(message: ToMatcher | FromMatcher) -> bytes:
    return framed(_encode(message))


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """A name for a socket that is short enough for the kernel, however deep its directory. Raises OSError."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


def connected(path: Path, timeout: float | None) -> socket.socket:
    """A connection to the matcher; without waiting for it where `timeout` is None. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout if timeout is not None else 0.0)
        with address(path) as name:
            sock.connect(name)
    except BaseException:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> bytes:
    """The next message. Raises OSError, also at the end."""
    frames = Frames(LIMIT)
    while data := sock.recv(65_536):
        for message in frames.feed(data):
            return message
    raise ConnectionResetError("the matcher hung up")
