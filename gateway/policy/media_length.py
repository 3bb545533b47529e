"""How long a recording or video in a request says that it is, by its container.

Encoders make a second of speech in less than a kilobyte, and of silence in a few bytes, so the size of a file alone
bounds nothing. Nothing here raises: `UNTOLD` is what is too long to tell, or a container that says nothing.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from gateway.policy.media_size import decoded

UNTOLD = math.inf
HEAD = 16  # base64 characters that show what it is
STEPS = 20_000  # pages or frames of a file that are walked through
AMR_FRAMES = 50  # a second, each of at least a byte

_ADTS_RATES = (96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350)
_MOVIE, _DURATION, _SCALE = b"mvhd", (b"\x44\x89\x84", b"\x44\x89\x88"), b"\x2a\xd7\xb1\x83"


def stated_seconds(data: str) -> float:
    """Of a file in base64. 0 where it is in no container that says so, or in one whose size tells enough (MP3)."""
    read = _reader(decoded(data, HEAD))
    try:
        return read(decoded(data, len(data))) if read is not None else 0
    except (struct.error, IndexError, ValueError, ArithmeticError):
        return UNTOLD


def _reader(head: bytes) -> Callable[[bytes], float] | None:
    for mark, at, read in _CONTAINERS:
        if head.startswith(mark, at):
            return read
    return _adts if len(head) > 7 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0 else None


def _ogg(raw: bytes) -> float:
    """The sum of its streams, one after the other or side by side: of each its last position."""
    seconds, at = 0.0, 0
    streams: dict[bytes, tuple[int, int]] = {}  # serial number: samples a second, and the last of them
    for _ in range(STEPS):
        if raw[at : at + 4] != b"OggS":
            return seconds + sum([last / rate for rate, last in streams.values()])
        flags, position, serial = raw[at + 5], struct.unpack_from("<q", raw, at + 6)[0], raw[at + 14 : at + 18]
        body = at + 27 + raw[at + 26]
        if flags & 2:  # a stream begins; another one of this number is over
            rate, last = streams.pop(serial, (1, 0))
            seconds += last / rate
            streams[serial] = (_ogg_rate(raw, body), 0)
        elif serial in streams:
            rate, last = streams[serial]
            streams[serial] = (rate, max(last, position))
        at = body + sum(raw[at + 27 : body])
    return UNTOLD


def _ogg_rate(raw: bytes, at: int) -> int:
    """Samples a second of the stream that begins with this packet; 0 of an unknown one."""
    if raw.startswith(b"OpusHead", at):
        return 48_000
    if raw.startswith(b"\x01vorbis", at):
        return int(struct.unpack_from("<I", raw, at + 12)[0])
    if raw.startswith(b"Speex   ", at):
        return int(struct.unpack_from("<I", raw, at + 36)[0])
    if raw.startswith(b"\x7fFLAC", at):
        return int.from_bytes(raw[at + 27 : at + 30], "big") >> 4
    return 0


def _flac(raw: bytes) -> float:
    found = int.from_bytes(raw[18:26], "big")
    return (found & (1 << 36) - 1) / (found >> 44) or UNTOLD


def _mp4(raw: bytes) -> float:
    at = raw.find(_MOVIE) + 4
    if at < 4:
        return UNTOLD
    scale, length = struct.unpack_from(">IQ", raw, at + 20) if raw[at] else struct.unpack_from(">II", raw, at + 12)
    return length / scale or UNTOLD


def _matroska(raw: bytes) -> float:
    at = max(raw.find(mark) for mark in _DURATION)
    if at < 0:
        return UNTOLD
    (length,) = struct.unpack_from(">f" if raw[at + 2] == 0x84 else ">d", raw, at + 3)
    scale = raw.find(_SCALE)
    unit = int.from_bytes(raw[scale + 4 : scale + 7], "big") if scale >= 0 else 1_000_000  # ns
    return float(length) * unit / 1e9 if length > 0 else UNTOLD


def _adts(raw: bytes) -> float:
    samples, at = 0, 0
    rate = _ADTS_RATES[raw[2] >> 2 & 15]
    for _ in range(STEPS):
        size = (raw[at + 3] & 3) << 11 | raw[at + 4] << 3 | raw[at + 5] >> 5 if at + 6 < len(raw) else 0
        if size < 7:
            return samples / rate
        samples += 1024 * (1 + (raw[at + 6] & 3))
        at += size
    return UNTOLD


def _amr(raw: bytes) -> float:
    return len(raw) / AMR_FRAMES


def _wav(raw: bytes) -> float:
    """Of any coding, by its bytes a second."""
    at = raw.index(b"fmt ") + 16
    return len(raw) / int.from_bytes(raw[at : at + 4], "little")


_CONTAINERS = (
    (b"OggS", 0, _ogg), (b"fLaC", 0, _flac), (b"ftyp", 4, _mp4), (b"\x1a\x45\xdf\xa3", 0, _matroska),
    (b"#!AMR", 0, _amr), (b"WAVE", 8, _wav),
)  # fmt: skip
