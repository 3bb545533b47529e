"""How many tokens a picture, recording, video or document can be at most, by what a request holds of it.

Twice the published rules; where a file does not show how long it is, what so many bytes may hold at most. What is
`UNSEEN` has no bound of its own: only linked to, packed, or too long to tell. It may fill the context of the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.policy.media_length import stated_seconds
from gateway.policy.media_size import Pixels, decoded, image_size, is_whole_wav, pdf_pages, unpacked
from gateway.policy.media_tokens import VIDEO, detail_of, image_tokens, media_tokens
from gateway.policy.token_families import family

UNSEEN = -1
MARGIN = 2
CLOSE = 256 + 2_048  # tokens of a picture that Gemini is told to look at in high resolution: the whole and its parts
LARGEST = Pixels(8192, 8192)  # a picture that is not in the request, or that cannot be read
PAGE = Pixels(1536, 2048)  # the picture of a page
PAGE_TEXT = 3_000  # tokens of its text
SLOW = 2_000  # bytes a second of a compressed recording or video that does not say how long it is
SAMPLES = 8_000  # and of one that is not compressed and has no header
BARE, PATCH = 6_500, 196  # tokens, pixels (14 a side)
ROUGH = ("MEDIA_RESOLUTION_UNSPECIFIED", "MEDIA_RESOLUTION_LOW", "MEDIA_RESOLUTION_MEDIUM", 0, 1, 2)
LONG = 200_000  # tokens: what seems to be more is too long to tell


def medium_bound(
    block: Mapping[str, Any], kind: str, held: tuple[str, str], model: str, *, closely: bool = False
) -> int:
    """`held`: the content in base64, "" where the block only points to it, and its media type. `closely`: the request
    asks for a high resolution of all its media."""
    data, mime = held
    if kind == "image":
        return max(_picture(block, data, model), CLOSE if closely or is_close(resolution_of(block)) else 0)
    if not data:
        return UNSEEN
    if kind == "document":
        return _document(decoded(data, len(data)), model)
    if kind == "audio" and "wav" in mime and is_whole_wav(data):
        tokens = media_tokens(block, kind, model)
    else:
        tokens = _seconds(data, mime) * (VIDEO * _frames(block) if kind == "video" else family(model).sound)
    return int(tokens * MARGIN) if tokens <= LONG else UNSEEN


def _seconds(data: str, mime: str) -> float:
    """What it says of itself, but no less than what such a file takes at least of its size."""
    size = len(data) * 3 // 4
    return max(size / (SAMPLES if "pcm" in mime else SLOW), stated_seconds(data)) + 1


def _picture(block: Mapping[str, Any], data: str, model: str) -> int:
    size = (image_size(data) if data else None) or LARGEST
    return int(image_tokens(size, model, detail_of(block) or "original") * MARGIN) + 1


def bare_picture(text: str) -> int:
    """A picture in base64 where nothing else says that it is one, as Ollama and embeddings of Cohere have it: by the
    smallest patches of any vision model, beside what some need at least. 0 for what is no picture."""
    size = image_size(text.partition(",")[2] if text.startswith("data:") else text)
    return 0 if size is None else BARE + size.width * size.height // PATCH


def is_close(resolution: object) -> bool:
    """Does Gemini look at more of a picture, told to look at it in this resolution?"""
    return resolution is not None and resolution not in ROUGH


def resolution_of(block: Mapping[str, Any]) -> Any:
    """That of one part; None where it states none."""
    stated = block.get("mediaResolution") or block.get("media_resolution")
    return stated.get("level") if isinstance(stated, Mapping) else stated


def _document(raw: bytes, model: str) -> int:
    if raw.startswith(b"%PDF"):
        pages = pdf_pages(raw)
        page = PAGE_TEXT + int(image_tokens(PAGE, model, "original"))
        return (pages + 1) * page if pages else UNSEEN
    tokens = unpacked(raw) if raw.startswith(b"PK") else len(raw)
    return tokens if 0 < tokens <= LONG else UNSEEN


def _frames(block: Mapping[str, Any]) -> float:
    """How many a second are looked at, where the request says so."""
    stated = block.get("videoMetadata") or block.get("video_metadata")
    rate = stated.get("fps") if isinstance(stated, Mapping) else None
    return max(1.0, float(rate)) if isinstance(rate, int | float) else 1.0
