"""Sizes of pictures, recordings and documents, read from the first bytes of what a request carries in base64.

Of pictures and recordings only headers are decoded, and nothing here raises: what cannot be read has no size.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from itertools import islice
from typing import NamedTuple

HEAD = 65_536  # base64 characters looked at for a header; a JPEG may carry a thumbnail before its frame
PAGE_BYTES = 40_000  # a page of a document whose pages cannot be counted
HEADER = 512  # bytes between the mark of a stream of objects and what it holds
PAGES, ENTRIES = 5_000, 10_000  # of a document, and of an archive, that are counted
STREAMS = 4_096  # of objects that are looked into
UNPACKED = 4_194_304  # bytes that the lists of objects of a document may have in all, for its pages to be counted

_URL_SAFE = str.maketrans("-_", "+/")
_PAGE = re.compile(rb"/Type\s*/Page(?![A-Za-z])")
_ENTRY = re.compile(rb"PK\x01\x02")
_PACKED = b"/ObjStm"  # marks a stream of objects
_STREAM = re.compile(rb"stream\r?\n")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG frame headers


class Pixels(NamedTuple):
    width: int
    height: int


def decoded(data: str, limit: int) -> bytes:
    """The bytes of a base64 text, or of as much of it as lies within `limit` characters; b"" for what is none."""
    part = data[:limit].rstrip("=\n")
    whole = part[:-1] if len(part) % 4 == 1 else part
    try:
        return base64.b64decode(whole.translate(_URL_SAFE) + "=" * (-len(whole) % 4))
    except (binascii.Error, ValueError):
        return b""


def image_size(data: str) -> Pixels | None:
    """Width and height of a PNG, GIF, WebP or JPEG in base64."""
    head = decoded(data, HEAD)
    try:
        if head.startswith(b"\x89PNG"):
            return Pixels(*struct.unpack_from(">II", head, 16))
        if head.startswith(b"GIF8"):
            return Pixels(*struct.unpack_from("<HH", head, 6))
        if head[8:12] == b"WEBP":
            return _webp(head)
        if head.startswith(b"\xff\xd8"):
            return _jpeg(head)
    except (struct.error, IndexError):
        pass
    return None


def _webp(head: bytes) -> Pixels | None:
    if head[12:16] == b"VP8X":
        return Pixels(1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little"))
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return Pixels(1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF))
    width, height = struct.unpack_from("<HH", head, 26)
    return Pixels(width & 0x3FFF, height & 0x3FFF)


def _jpeg(head: bytes) -> Pixels | None:
    at = 2
    while at < len(head):
        marker, length = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", head, at + 5)
            return Pixels(width, height)
        if length < 2:
            return None
        at += 2 + length
    return None


def audio_seconds(data: str, kind: str) -> float:
    """The length of a recording; of compressed ones from their size at 16 kB/s (128 kbit/s)."""
    size = len(data) * 3 / 4
    if "wav" in kind:
        head = decoded(data, 64)
        if head[:4] == b"RIFF" and len(head) >= 32 and (rate := int.from_bytes(head[28:32], "little")):
            return size / rate
    if "pcm" in kind:
        return size / 48_000  # 24 kHz, 16 bit
    return size / 16_000


def is_whole_wav(data: str) -> bool:
    """Does the header of a recording say how long it is, without contradiction?"""
    head = decoded(data, 64)
    if len(head) < 34 or head[:4] != b"RIFF" or head[8:16] != b"WAVEfmt ":
        return False
    rate, speed, block = struct.unpack_from("<IIH", head, 24)
    return bool(speed == rate * block > 0)


def document_pages(data: str) -> int:
    """Pages of a PDF in base64, at least one; counted where the file shows them, else from its size."""
    raw = decoded(data, len(data))
    return pdf_pages(raw) or 1 + len(raw) // PAGE_BYTES


def pdf_pages(raw: bytes) -> int:
    """Pages of a PDF, also of one that packs the list of its objects; 0 where that cannot be told."""
    pages, left, at = _listed(raw), UNPACKED, raw.find(_PACKED)
    for _ in range(STREAMS):
        if at < 0:
            return pages if pages < PAGES else 0
        found = _STREAM.search(raw, at, at + HEADER)
        end = raw.find(b"endstream", at)
        if found is None or end < 0:
            return 0
        try:
            objects = zlib.decompressobj().decompress(raw[found.end() : end], left)
        except zlib.error:
            return 0
        pages += _listed(objects)
        left -= len(objects)
        if left <= 0:
            return 0
        at = raw.find(_PACKED, end)
    return 0


def _listed(objects: bytes) -> int:
    return sum(1 for _ in islice(_PAGE.finditer(objects), PAGES))


def unpacked(raw: bytes) -> int:
    """Bytes in a zip archive, which most office documents are, by its directory; 0 where that cannot be told."""
    entries = [found.start() for found in islice(_ENTRY.finditer(raw), ENTRIES)]
    if len(entries) == ENTRIES or (entries and entries[-1] + 28 > len(raw)):
        return 0
    return sum([struct.unpack_from("<I", raw, at + 24)[0] for at in entries])
