"""How models count: one table of constants per family of vocabulary, and the published rules for media.

The constants were fitted to the recordings in tests/golden/estimates (see its README for the figures and how to fit
them again): they minimise the mean relative error, capped at 1, of the estimated input and output tokens.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple


class Family(NamedTuple):
    """Constants of the models whose id matches `models`; tokens throughout."""

    models: str
    text: float = 1.0  # per unit of text, see policy.text_units
    request: float = 3  # what every request costs
    message: float = 4  # what every message costs beside its text
    tools: float = 30  # what declaring any tool costs
    schema: float = 0.8  # per unit of tool definitions and answer schemas
    call: float = 12  # what a tool call in an answer costs beside its arguments
    density: float = 4.2  # characters per token of an answer of which only the length is known
    image: Literal["tiles", "area", "grid", "parts"] = "tiles"  # which rule of policy.media_tokens
    sound: float = 10  # per second of a recording
    page: float = 500  # per page of a document
    hidden: int = 0  # at most, of a template that is not billed; some servers count it all the same


FAMILIES = (
    Family(
        r"claude",
        text=1.1,
        request=4.5,
        message=4.5,
        tools=485,
        schema=1.4,
        call=41,
        density=3.6,
        image="area",
        page=1600,
    ),  # of a page both the text and the picture, 1,500 to 3,000 in all
    Family(
        r"gemini|gemma|palm",
        text=0.95,
        request=0.2,
        message=0.5,
        tools=1,
        schema=0.45,
        call=13,
        density=4.4,
        image="grid",
        sound=32,
        page=258,
    ),  # https://ai.google.dev/gemini-api/docs/tokens
    Family(r"gpt-oss", request=70, message=3, tools=40, schema=1, call=18, density=3.6),
    Family(r"gpt-4o|gpt-4\.|gpt-[5-9]|chatgpt|codex|(?:^|/)o\d", request=2, tools=10, schema=0.55, call=19, density=5),
    Family(r"gpt-|davinci|babbage|text-embedding", text=0.91, tools=8, schema=0.8, call=14, density=5.2),
    Family(r"deepseek", request=1, message=3, tools=225, schema=1.2, call=30, density=4.3),
    Family(r"grok-4-1-fast", text=0.9, request=1, message=1, tools=155, schema=0.9, call=23, density=3.9),
    Family(r"grok", text=1.1, request=125, message=20, tools=66, schema=1.1, call=12, density=4.7),
    Family(r"stral|mixtral", text=1.15, request=9, message=4.2, tools=1, schema=1.2, call=14, density=3.6),
    Family(r"llama-?4", text=0.95, request=6, message=4, tools=570, schema=0.4, call=26, density=4.7),
    Family(r"llama", text=0.92, request=30, message=5, tools=100, call=19, density=4.4),
    Family(
        r"command|c4ai|aya-|embed-v4",
        request=0,
        message=0.5,
        tools=0,
        schema=0.35,
        call=14,
        image="parts",
        hidden=2000,
    ),  # what is billed
    Family(r"qwen", request=4, tools=200, schema=1, call=23),
)
OTHER = Family("")


class Tiles(NamedTuple):
    """OpenAI: an image is fitted into 2048 x 2048, its shorter side then to 768; 512-pixel tiles are counted.

    https://platform.openai.com/docs/guides/images-vision#calculating-costs
    """

    models: str
    base: int
    tile: int


class Patches(NamedTuple):
    """OpenAI's smaller and later models: 32-pixel patches, at most so many, times a factor (same page)."""

    models: str
    factor: float
    most: int = 1536
    whole: int = 1536  # of a picture that is to be looked at in its original size


TILES = (
    Tiles(r"gpt-4o-mini", 2833, 5667),
    Tiles(r"gpt-5|chatgpt", 70, 140),
    Tiles(r"(?:^|/)o\d", 75, 150),
    Tiles(r"computer-use", 65, 129),
    Tiles(r"", 85, 170),
)
PATCHES = (
    Patches(r"gpt-5\.[4-9]|gpt-[6-9]", 1.2, most=2500, whole=10_000),
    Patches(r"gpt-(?:4\.|5)[^/]*-mini", 1.62),
    Patches(r"gpt-(?:4\.|5)[^/]*-nano", 2.46),
    Patches(r"o4-mini", 1.72),
)


@lru_cache(maxsize=1024)
def family(model: str) -> Family:
    model = model.lower()
    return next((f for f in FAMILIES if re.search(f.models, model)), OTHER)
