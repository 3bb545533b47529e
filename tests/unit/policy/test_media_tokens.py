from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy.media_size import Pixels, audio_seconds, document_pages, image_size
from gateway.policy.media_tokens import image_tokens, media_kind, media_tokens


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00" * 4


def jpeg(width: int, height: int, before: int = 100) -> bytes:
    exif = b"\xff\xe1" + struct.pack(">H", before + 2) + b"\x00" * before
    frame = b"\xff\xc0" + struct.pack(">HBHH", 17, 8, height, width) + b"\x03" + b"\x00" * 9
    return b"\xff\xd8" + exif + frame


def webp(kind: bytes, rest: bytes) -> bytes:
    return b"RIFF\x00\x00\x00\x00WEBP" + kind + b"\x00\x00\x00\x00" + rest


def wav(seconds: float, rate: int) -> bytes:
    size = int(seconds * rate)
    head = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", size + 36, b"WAVE", b"fmt ", 16, 1, 1, rate // 2, rate, 2, 16,
                       b"data", size)  # fmt: skip
    return head + b"\x00" * size


@pytest.mark.parametrize(
    "data",
    [
        png(640, 480),
        jpeg(640, 480),
        jpeg(640, 480, before=30_000),
        b"GIF89a" + struct.pack("<HH", 640, 480) + b"\x00" * 10,
        webp(b"VP8X", b"\x00\x00\x00\x00" + (639).to_bytes(3, "little") + (479).to_bytes(3, "little")),
        webp(b"VP8L", b"\x2f" + (639 | 479 << 14).to_bytes(4, "little") + b"\x00" * 8),
        webp(b"VP8 ", b"\x00\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 640, 480) + b"\x00" * 8),
    ],
    ids=["png", "jpeg", "jpeg with exif", "gif", "webp extended", "webp lossless", "webp lossy"],
)
def test_the_size_of_an_image_is_in_its_first_bytes(data: bytes):
    assert image_size(b64(data)) == Pixels(640, 480)
    assert image_size(base64.urlsafe_b64encode(data).decode().rstrip("=")) == Pixels(640, 480)


@given(
    st.binary(max_size=200),
    st.sampled_from([b"\xff\xd8", b"\x89PNG", b"GIF8", b"RIFF0000WEBPVP8X", b"RIFF0000WEBP", b""]),
)
def test_what_is_no_image_has_no_size_and_nothing_raises(data: bytes, start: bytes):
    image_size(b64(start + data))
    image_size((start + data).decode("latin-1"))


@pytest.mark.parametrize(
    ("model", "size", "tokens"),
    [
        # the examples of the providers' own pages
        ("gpt-4o", Pixels(1024, 1024), 765),
        ("gpt-4o", Pixels(2048, 4096), 1105),
        ("gpt-4o-mini", Pixels(1024, 1024), 2833 + 4 * 5667),
        ("gpt-5", Pixels(1024, 1024), 630),
        ("o3", Pixels(1024, 1024), 675),
        ("gpt-4.1-mini", Pixels(1024, 1024), 1024 * 1.62),
        ("gpt-5-nano", Pixels(4096, 4096), 1536 * 2.46),
        ("o4-mini", Pixels(640, 480), 516),
        ("claude-sonnet-4-5", Pixels(200, 200), 40_000 / 750),
        ("claude-sonnet-4-5", Pixels(1000, 1000), 1_000_000 / 750),
        ("claude-sonnet-4-5", Pixels(8000, 8000), 1600),
        ("gemini-2.5-flash", Pixels(300, 300), 258),
        ("gemini-2.5-flash", Pixels(640, 480), 258),
        ("gemini-2.5-flash", Pixels(960, 540), 6 * 258),
    ],
)
def test_images_count_by_the_published_rules(model: str, size: Pixels, tokens: float):
    assert image_tokens(size, model) == pytest.approx(tokens)


def test_low_detail_is_the_base_alone():
    assert image_tokens(Pixels(4096, 4096), "gpt-4o", "low") == 85


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + b64(png(300, 300))}},
        {"type": "input_image", "image_url": "data:image/png;base64," + b64(png(300, 300))},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": b64(png(300, 300))}},
        {"inlineData": {"mimeType": "image/png", "data": b64(png(300, 300))}},
        {"inline_data": {"mime_type": "image/png", "data": b64(png(300, 300))}},
    ],
)
def test_an_image_in_every_dialect(block: dict[str, object]):
    assert media_kind(block) == "image"
    assert media_tokens(block, "image", "claude-x") == pytest.approx(120)


def test_an_image_elsewhere_counts_as_a_common_one():
    block = {"type": "image_url", "image_url": {"url": "https://example.com/" + "x" * 500, "detail": "high"}}
    assert media_tokens(block, "image", "gpt-4o") == 765
    assert media_tokens(block | {"image_url": {"url": "https://x.y/z", "detail": "low"}}, "image", "gpt-4o") == 85


def test_sound_counts_by_the_second():
    block = {"type": "input_audio", "input_audio": {"data": b64(wav(2.0, 16_000)), "format": "wav"}}
    assert media_kind(block) == "audio"
    assert media_tokens(block, "audio", "gpt-4o-audio-preview") == pytest.approx(20, abs=0.1)
    assert media_tokens(block, "audio", "gemini-2.5-flash") == pytest.approx(64, abs=0.2)
    assert audio_seconds(b64(b"\x00" * 32_000), "mp3") == pytest.approx(2, abs=0.01)


def test_documents_count_by_the_page():
    pdf = b"%PDF-1.4 /Type /Pages " + b"<< /Type /Page >> << /Type/Page /Parent 1 0 R >> " + b"x" * 300
    assert document_pages(b64(pdf)) == 2
    assert document_pages(b64(b"%PDF-1.7" + b"\x00" * 100_000)) == 3
    block = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": b64(pdf)}}
    assert media_tokens(block, "document", "claude-x") == 3200
    assert media_tokens({"fileData": {"fileUri": "x", "mimeType": "application/pdf"}}, "document", "gemini-x") == 258


def test_text_in_a_document_counts_as_text():
    text = "word " * 100
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": text}}
    inline = {"inlineData": {"mimeType": "text/plain", "data": b64(text.encode())}}
    assert media_tokens(plain, "document", "claude-x") == pytest.approx(103)
    assert media_tokens(inline, media_kind(inline), "gemini-x") == pytest.approx(103)


def test_the_length_of_base64_never_counts():
    small, large = (
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": b64(png(64, 64) + b"\x00" * n)},
        }
        for n in (300, 300_000)
    )
    assert media_tokens(small, "image", "claude-x") == media_tokens(large, "image", "claude-x")


@pytest.mark.parametrize("block", [{"type": "text", "text": "image"}, {"type": "tool_use"}, {}, {"type": 3}])
def test_what_is_no_media(block: dict[str, object]):
    assert media_kind(block) == ""
