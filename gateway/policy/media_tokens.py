"""Tokens of images, recordings, videos and documents in a request, by the rules providers publish.

What is not in the request itself (a URL, an uploaded file) has no known size: an image counts as 1024 x 1024, a
recording or video as ten seconds, a document as one page.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from gateway.policy.media_size import Pixels, audio_seconds, decoded, document_pages, image_size
from gateway.policy.text_units import units
from gateway.policy.token_families import NOT_PATCHES, PATCHES, TILES

TYPES = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "input_audio": "audio",
    "audio": "audio",
    "audio_url": "audio",
    "video": "video",
    "video_url": "video",
    "document": "document",
    "document_url": "document",
    "file": "document",
    "input_file": "document",
}
HOLDERS = ("inlineData", "inline_data", "fileData", "file_data")  # Gemini

UNSEEN_IMAGE = Pixels(1024, 1024)
UNSEEN_SECONDS = 10.0
VIDEO_BYTES = 100_000  # of a second
PAYLOADS = frozenset({"data", "file_data", "fileData"})
MIMES = frozenset({"media_type", "mime_type", "mimeType", "format"})


def media_kind(block: Mapping[str, Any]) -> str:
    """image, audio, video or document; "" for a block that is something else."""
    for holder in HOLDERS:
        if isinstance(inner := block.get(holder), dict):
            return _kind_of_mime(str(inner.get("mimeType") or inner.get("mime_type") or ""))
    type_ = block.get("type")
    if type_ == "text" or not isinstance(type_, str):
        return ""
    return TYPES.get(type_, "")


def media_tokens(block: Mapping[str, Any], kind: str, model: str) -> float:
    """Tokens of one block of this kind. Never raises."""
    data, mime = _payload(block)
    model = model.lower()
    if mime.startswith("text/") or _is_text(block):
        text = decoded(data, len(data)).decode("utf-8", "replace") if not _is_text(block) else data
        return units(text)
    if kind == "document" and mime and _kind_of_mime(mime) != "document":
        kind = _kind_of_mime(mime)
    if kind == "image":
        return image_tokens((data and image_size(data)) or UNSEEN_IMAGE, model, _detail(block))
    if kind == "audio":
        # Gemini 32 a second (https://ai.google.dev/gemini-api/docs/tokens), the others 10 to 12.5
        return (audio_seconds(data, mime) if data else UNSEEN_SECONDS) * (32 if "gemini" in model else 10)
    if kind == "video":
        # 258 a frame, one frame a second, and its sound
        return (max(1.0, len(data) * 0.75 / VIDEO_BYTES) if data else UNSEEN_SECONDS) * 290
    return (document_pages(data) if data else 1) * _page(model)


def image_tokens(size: Pixels, model: str, detail: str = "") -> float:
    """Tokens of an image of this size."""
    width, height = max(size.width, 1), max(size.height, 1)
    if "claude" in model:
        # https://docs.claude.com/en/docs/build-with-claude/vision: pixels / 750, after fitting to 1568 a side
        shrink = min(1.0, 1568 / max(width, height))
        return min(width * height * shrink * shrink / 750, 1600)
    if "gemini" in model:
        # https://ai.google.dev/gemini-api/docs/image-understanding: 258, or 258 for each 768-pixel tile
        return 258 if max(width, height) <= 384 else 258 * _gemini_tiles(width, height)
    if NOT_PATCHES not in model and (patches := next((p for p in PATCHES if re.search(p.models, model)), None)):
        return min(math.ceil(width / 32) * math.ceil(height / 32), 1536) * patches.factor
    tiles = next(t for t in TILES if re.search(t.models, model))
    if detail == "low":
        return tiles.base
    shrink = min(1.0, 2048 / max(width, height))
    shrink *= min(1.0, 768 / (min(width, height) * shrink))
    return tiles.base + tiles.tile * math.ceil(width * shrink / 512) * math.ceil(height * shrink / 512)


def _gemini_tiles(width: int, height: int) -> int:
    side = max(256, min(768, int(min(width, height) / 1.5)))
    return math.ceil(width / side) * math.ceil(height / side) if max(width, height) > 768 else 1


def _page(model: str) -> float:
    """A page of a PDF. Gemini 258; Claude reads its text and its picture, 1,500 to 3,000; others its text, mostly."""
    return 258 if "gemini" in model else 1600 if "claude" in model else 500


def _kind_of_mime(mime: str) -> str:
    family = mime.partition("/")[0]
    return family if family in ("image", "audio", "video") else "document"


def _is_text(block: Mapping[str, Any]) -> bool:
    """Anthropic's plain-text documents hold their text as it is."""
    source = block.get("source")
    return isinstance(source, dict) and source.get("type") == "text"


def _detail(block: Mapping[str, Any]) -> str:
    inner = block.get("image_url")
    found = block.get("detail") or (inner.get("detail") if isinstance(inner, dict) else "")
    return found if isinstance(found, str) else ""


def _payload(block: Mapping[str, Any]) -> tuple[str, str]:
    """(base64 text, media type) of what a block carries itself; ("", ...) where it only points to it."""
    data, mime = "", ""
    for key, value in _strings("", block):
        if value.startswith("data:"):
            head, _, data = value.partition(",")
            mime = head[5:].partition(";")[0]
        elif key in PAYLOADS:
            data = value
        elif key in MIMES:
            mime = value
    return data, mime


def _strings(key: str, value: object, depth: int = 4) -> list[tuple[str, str]]:
    """Every string in a block, with the name of the member that holds it."""
    if isinstance(value, str):
        return [(key, value)]
    if isinstance(value, dict) and depth:
        return [found for name, inner in value.items() for found in _strings(name, inner, depth - 1)]
    return []
