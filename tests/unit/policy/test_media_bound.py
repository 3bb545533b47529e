"""What media in a request may be at most: of files as programs write them, and of what their bytes do not show."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
import zlib
from typing import Any

import pytest

from gateway.policy.media_bound import UNSEEN, medium_bound

SONNET, OPUS, FLASH = "claude-sonnet-4-5", "claude-opus-4-7", "gemini-2.5-flash"
PROSE = "Every page of this report says what was measured, and when. " * 50
PDF, JSON = "application/pdf", "application/json"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> str:
    return b64(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00")


def bound(kind: str, data: str, mime: str, model: str, **block: Any) -> int:
    return medium_bound(block, kind, (data, mime), model)


def packed_pdf(pages: int, *, damaged: bool = False) -> str:
    """As LaTeX and others write it: the objects of the pages stand in a compressed stream."""
    objects = zlib.compress(b" ".join(b"<</Type/Page/Parent 1 0 R>>" for _ in range(pages)))
    stream = b"\0" + objects[1:] if damaged else objects
    return b64(b"%PDF-1.5\n1 0 obj <</Type/ObjStm/N 9/Filter/FlateDecode>>stream\n" + stream + b"\nendstream endobj")


@pytest.mark.parametrize(
    ("model", "size", "tokens"),  # what providers count, by their pages on pictures or as measured
    [
        (OPUS, (2576, 1460), 4_784),
        ("gpt-5.4", (3200, 3200), 12_000),  # in its original size
        ("gpt-5.4-mini", (1600, 1600), 3_008),
        ("gemini-3-pro-preview", (64, 64), 2_240),  # in the finest resolution
        ("gpt-4o-mini", (4096, 4096), 2_833 + 8 * 5_667),
    ],
)
def test_no_picture_counts_less_than_it_may(model: str, size: tuple[int, int], tokens: int):
    assert tokens <= bound("image", png(*size), "image/png", model) <= 3 * tokens


def test_a_picture_that_cannot_be_read_is_a_large_one():
    heic = b64(b"\0\0\0\x18ftypheic" + b"\0" * 500)
    assert bound("image", heic, "image/heic", FLASH) >= 24 * 258


def test_pages_count_wherever_a_document_lists_them():
    page = 3_000 + 1_600  # text and picture of a dense one, as Anthropic says
    assert bound("document", packed_pdf(30), PDF, SONNET) >= 30 * page
    assert bound("document", b64(b"%PDF-1.4 " + b"<</Type /Page>> " * 7), PDF, SONNET) >= 7 * page
    assert bound("document", packed_pdf(30, damaged=True), PDF, SONNET) == UNSEEN  # or encrypted
    assert bound("document", b64(b"%PDF-1.7 " + b"x" * 999), PDF, SONNET) == UNSEEN
    for hostile in (b"/Type/Page /ObjStm" * 9, b"/Type/Page /ObjStm stream\n" * 9, b"/Type/Page" + b"/ObjStm" * 9_999):
        assert bound("document", b64(b"%PDF-1.7 " + hostile), PDF, SONNET) == UNSEEN


def test_a_document_of_text_counts_as_text():
    data = b'{"a": [1, 2, 3]}' * 2_000
    assert bound("document", b64(data), JSON, FLASH) >= len(data)
    assert bound("document", b64(data * 9), JSON, FLASH) == UNSEEN
    assert bound("document", "*", JSON, FLASH) == UNSEEN


def test_an_office_document_counts_as_what_is_packed_in_it():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", PROSE)
    assert len(file.getvalue()) < len(PROSE) / 4
    assert bound("document", b64(file.getvalue()), "application/vnd.ms-word", "gpt-5") >= len(PROSE)
    assert bound("document", b64(b"PK" + bytes(90)), "application/vnd.ms-word", "gpt-5") == UNSEEN


def test_a_recording_is_as_long_as_its_header_says_unless_that_contradicts_itself():
    def wav(speed: int) -> str:
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 36, b"WAVE", b"fmt ", 16, 1, 1, 8_000, speed, 2, 16, b"data", 0
        )
        return b64(head + bytes(160_000))

    ten_seconds = bound("audio", wav(16_000), "wav", FLASH)
    assert 10 * 32 <= ten_seconds <= 3 * 10 * 32
    assert bound("audio", wav(16_000_000), "wav", FLASH) >= ten_seconds
    assert bound("audio", b64(bytes(80_000)), "audio/pcm", FLASH) >= 10 * 32


def test_a_video_counts_by_the_frames_that_are_looked_at():
    data = b64(bytes(20_000))
    once = bound("video", data, "video/mp4", FLASH)
    assert bound("video", data, "video/mp4", FLASH, videoMetadata={"fps": 10}) >= 10 * once - 10
    assert bound("video", b64(bytes(3_000_000)), "video/mp4", FLASH) == UNSEEN  # it may be an hour of slides
    assert bound("video", "", "video/mp4", FLASH) == UNSEEN
