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
from gateway.policy.token_families import PATCHES, TILES, family

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
SMALL_PICTURES = r"claude-(?:instant|\d|[a-z]+-4(?:-[0-6]|-\d{8}|[@:]|$))"  # Claude up to 4.6
HOLDERS = ("inlineData", "inline_data", "fileData", "file_data")  # Gemini
SOURCED = ("image", "audio", "video", "document")  # Bedrock, each with a `source`

UNSEEN_IMAGE = Pixels(1024, 1024)
UNSEEN_SECONDS = 10.0
VIDEO, VIDEO_BYTES = 290, 100_000  # tokens of a second: a frame and its sound (Gemini); and its bytes
PAYLOADS = frozenset({"data", "file_data", "fileData", "bytes"})
MIMES = frozenset({"media_type", "mime_type", "mimeType", "format"})


def media_kind(block: Mapping[str, Any]) -> str:
    """image, audio, video or document; "" for a block that is something else."""
    for holder in HOLDERS:
        if isinstance(inner := block.get(holder), dict):
            return _kind_of_mime(str(inner.get("mimeType") or inner.get("mime_type") or ""))
    if kind := next((kind for kind in SOURCED if source_of(block, kind)), ""):
        return kind
    type_ = block.get("type")
    if type_ == "text" or not isinstance(type_, str):
        return ""
    return TYPES.get(type_, "")


def source_of(block: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """Where the content of Bedrock's block of this kind comes from; empty for a block that is none."""
    inner = block.get(kind)
    source = inner.get("source") if isinstance(inner, dict) and "format" in inner else None
    return source if isinstance(source, dict) else {}


def media_tokens(block: Mapping[str, Any], kind: str, model: str) -> float:
    """Tokens of one block of this kind. Never raises."""
    data, mime = payload(block)
    if mime.startswith("text/") or is_text(block):
        if is_text(block):
            return units(data or source_of(block, "document")["text"])
        return units(decoded(data, len(data)).decode("utf-8", "replace"))
    kind = kind_of(kind, mime)
    constants = family(model)
    if kind == "image":
        return image_tokens((data and image_size(data)) or UNSEEN_IMAGE, model, detail_of(block))
    if kind == "audio":
        return (audio_seconds(data, mime) if data else UNSEEN_SECONDS) * constants.sound
    if kind == "video":
        return (max(1.0, len(data) * 0.75 / VIDEO_BYTES) if data else UNSEEN_SECONDS) * VIDEO
    return (document_pages(data) if data else 1) * constants.page


def image_tokens(size: Pixels, model: str, detail: str = "") -> float:
    """Tokens of an image of this size."""
    size = Pixels(max(size.width, 1), max(size.height, 1))
    return RULES[family(model).image](size, model.lower(), detail)


def _area(size: Pixels, model: str, detail: str) -> float:
    """Claude: pixels / 750, once fitted into 1568 a side, of later models into 2576.
    https://docs.claude.com/en/docs/build-with-claude/vision"""
    side, most = (1568, 1600) if re.search(SMALL_PICTURES, model) else (2576, 4784)
    shrink = min(1.0, side / max(size))
    return min(size.width * size.height * shrink * shrink / 750, most)


def _grid(size: Pixels, model: str, detail: str) -> float:
    """Gemini: 258 for each tile of at most 768 pixels (https://ai.google.dev/gemini-api/docs/image-understanding);
    since 3 always the same (https://ai.google.dev/gemini-api/docs/media-resolution)."""
    if re.search(r"gemini-[3-9]", model):
        return 1120
    side = max(256, min(768, int(min(size) / 1.5)))
    return 258 * (math.ceil(size.width / side) * math.ceil(size.height / side) if max(size) > 768 else 1)


def _tiles(size: Pixels, model: str, detail: str) -> float:
    """OpenAI, see `token_families.Tiles` and `Patches`."""
    if patches := next((p for p in PATCHES if re.search(p.models, model)), None):
        most = patches.whole if detail == "original" else patches.most
        return min(math.ceil(size.width / 32) * math.ceil(size.height / 32), most) * patches.factor
    tiles = next(t for t in TILES if re.search(t.models, model))
    if detail == "low":
        return tiles.base
    shrink = min(1.0, 2048 / max(size))
    shrink *= min(1.0, 768 / (min(size) * shrink))
    return tiles.base + tiles.tile * math.ceil(size.width * shrink / 512) * math.ceil(size.height * shrink / 512)


def _parts(size: Pixels, model: str, detail: str) -> float:
    """Cohere: 256 for the whole, and for each of up to twelve tiles of 512 pixels unless the detail is low.
    https://docs.cohere.com/docs/image-inputs"""
    tiles = math.ceil(size.width / 512) * math.ceil(size.height / 512)
    return 256.0 * (1 if detail == "low" else 1 + min(tiles, 12))


RULES = {"area": _area, "grid": _grid, "parts": _parts, "tiles": _tiles}


def _kind_of_mime(mime: str) -> str:
    family = mime.partition("/")[0]
    return family if family in ("image", "audio", "video") else "document"


def kind_of(kind: str, mime: str) -> str:
    """What a block of this kind is by its media type, which counts for more where there is one."""
    return _kind_of_mime(mime) if "/" in mime else kind


def is_text(block: Mapping[str, Any]) -> bool:
    """Anthropic's and Bedrock's plain-text documents hold their text as it is."""
    source = block.get("source")
    if isinstance(source, dict):
        return source.get("type") == "text"
    return isinstance(source_of(block, "document").get("text"), str)


def detail_of(block: Mapping[str, Any]) -> str:
    """How closely a picture is to be looked at; "" where that is for the model to choose."""
    inner = block.get("image_url")
    found = block.get("detail") or (inner.get("detail") if isinstance(inner, dict) else "")
    return found if isinstance(found, str) and found != "auto" else ""


def payload(block: Mapping[str, Any]) -> tuple[str, str]:
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
