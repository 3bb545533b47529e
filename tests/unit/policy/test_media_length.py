"""How long recordings say that they are, in each of the containers that encoders write."""

from __future__ import annotations

import base64
import math
import struct

import pytest

from gateway.policy.media_bound import UNSEEN, medium_bound
from gateway.policy.media_length import STEPS, UNTOLD, stated_seconds

OPUS, VORBIS = b"OpusHead" + bytes(11), b"\x01vorbis" + struct.pack("<IBI", 0, 1, 44_100)
SPEEX = b"Speex   " + bytes(28) + struct.pack("<I", 8_000)


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def page(payload: bytes, position: int, *, first: bool = False, serial: int = 7) -> bytes:
    lacing = bytes([255] * (len(payload) // 255) + [len(payload) % 255])
    head = struct.pack("<4sBBqIIIB", b"OggS", 0, 2 * first, position, serial, 0, 0, len(lacing))
    return head + lacing + payload


def ogg(head: bytes, position: int) -> bytes:
    return page(head, 0, first=True) + page(bytes(300), position // 2) + page(bytes(90), position)


def flac(rate: int, samples: int) -> bytes:
    packed = (rate << 44) | (1 << 36) | samples
    return b"fLaC\0\0\0\x22" + bytes(10) + packed.to_bytes(8, "big") + bytes(16)


def mp4(*, scale: int = 1000, length: int, wide: bool = False) -> bytes:
    times = struct.pack(">QQIQ" if wide else ">IIII", 0, 0, scale, length)
    return b"\0\0\0\x14ftypM4A " + bytes(8) + b"\0\0\0\x08free" + b"\0\0\0\x6cmvhd" + bytes([wide, 0, 0, 0]) + times


def webm(duration: bytes, scale: bytes = b"\x2a\xd7\xb1\x83\x0f\x42\x40") -> bytes:
    return b"\x1a\x45\xdf\xa3\x9fB\x86\x81\x01" + scale + duration + bytes(20)


def adts(frames: int, rate: int) -> bytes:
    size = 12  # of silence
    head = bytes([0xFF, 0xF1, 0x40 | rate << 2, 0x40 | size >> 11, size >> 3 & 0xFF, (size & 7) << 5, 0xFC])
    return (head + bytes(size - 7)) * frames


def wav(speed: int, size: int) -> bytes:
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 0x42, 1, 8_000, speed, 24, 0) + bytes(size)


@pytest.mark.parametrize(
    ("file", "seconds"),
    [
        (ogg(OPUS, 60 * 48_000), 60),
        (ogg(VORBIS, 60 * 44_100), 60),
        (ogg(SPEEX, 60 * 8_000), 60),
        (ogg(OPUS, 48_000) + ogg(OPUS, 96_000), 3),  # one file behind the other
        (page(OPUS, 0, first=True) + page(VORBIS, 0, first=True, serial=8) + page(b"", 96_000), 2),
        (flac(8_000, 480_000), 60),
        (mp4(length=60_000), 60),
        (mp4(length=60_000, wide=True), 60),
        (webm(b"\x44\x89\x84" + struct.pack(">f", 60_000)), 60),
        (webm(b"\x44\x89\x88" + struct.pack(">d", 60_000)), 60),
        (webm(b"\x44\x89\x88" + struct.pack(">d", 60_000), b""), 60),
        (adts(480, 11), 480 * 1024 / 8_000),
        (b"#!AMR\n" + bytes(2994), 60),
        (wav(800, 47_900), 60),
    ],
)  # fmt: skip
def test_a_container_says_how_long_it_is(file: bytes, seconds: float):
    assert stated_seconds(b64(file)) == pytest.approx(seconds, rel=0.01)
    assert stated_seconds(b64(file).rstrip("=").replace("+", "-").replace("/", "_")) == stated_seconds(b64(file))


@pytest.mark.parametrize(
    "file",
    [
        page(b"unknown codec", 0, first=True) + page(b"", 48_000),
        page(b"", 0) * (STEPS + 1),
        flac(44_100, 0),  # as written by a stream
        mp4(length=0),  # in fragments
        b"\0\0\0\x14ftypM4A " + bytes(8),  # its header lies elsewhere
        webm(b""),  # as browsers record it
        adts(STEPS + 1, 4),
        wav(0, 100),
        b"OggS\0",
    ],
)
def test_what_does_not_say_so_may_be_of_any_length(file: bytes):
    assert stated_seconds(b64(file)) == UNTOLD == math.inf
    assert medium_bound({}, "audio", (b64(file), "audio/any"), "gemini-2.5-flash") == UNSEEN


@pytest.mark.parametrize("file", [b"ID3\x04" + bytes(900), b"\xff\xfb\x90\x64" + bytes(900), b"", b"\xff", b"junk" * 9])
def test_of_others_the_size_tells(file: bytes):
    assert stated_seconds(b64(file)) == 0


def test_a_recording_of_silence_is_held_by_its_length():
    """Five minutes of speech that pauses, in 40 kB: 133 bytes a second."""
    long = ogg(OPUS, 300 * 48_000) + page(bytes(40_000), 300 * 48_000)
    for kind, mime, tokens in (("audio", "audio/ogg", 32), ("video", "video/ogg", 290)):
        assert 300 * tokens <= medium_bound({}, kind, (b64(long), mime), "gemini-2.5-flash") <= 3 * 300 * tokens
    longer = medium_bound({}, "audio", (b64(ogg(OPUS, 1) + bytes(80_000)), "audio/ogg"), "gemini-2.5-flash")
    assert longer >= 40 * 32  # whatever it says: a recording of that size is no shorter
