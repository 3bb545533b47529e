"""Messages out of a stream of bytes."""

from __future__ import annotations

import pytest

from gateway.frames import Frames, framed

STREAM = b"\2\0\0\0ab\1\0\0\0c\0\0\0\0"


def test_only_whole_messages_come_out() -> None:
    assert framed(b"ab") + framed(b"c") + framed(b"") == STREAM
    assert [list(Frames().feed(STREAM[:end])) for end in (0, 3, 5, 6, 10, 11, 15)] == [
        [], [], [], [b"ab"], [b"ab"], [b"ab", b"c"], [b"ab", b"c", b""],
    ]  # fmt: skip


@pytest.mark.parametrize("size", range(1, len(STREAM)))
def test_what_comes_in_pieces_is_put_together(size: int) -> None:
    frames = Frames(2)
    pieces = [STREAM[at : at + size] for at in range(0, len(STREAM), size)]
    assert [message for piece in pieces for message in frames.feed(piece)] == [b"ab", b"c", b""]


def test_what_is_too_large_is_refused_by_its_length_alone() -> None:
    assert list(Frames(2).feed(framed(b"ab"))) == [b"ab"]
    with pytest.raises(ValueError, match="3 bytes"):
        list(Frames(2).feed(framed(b"abc")[:4]))
