"""Small PNG files: a picture of few colours takes a byte for a pixel in place of three."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from playwright.sync_api import Page

_INDEXED = """async (data) => {
  const image = await createImageBitmap(await (await fetch("data:image/png;base64," + data)).blob());
  const canvas = new OffscreenCanvas(image.width, image.height), drawn = canvas.getContext("2d");
  drawn.drawImage(image, 0, 0);
  const pixels = new Uint32Array(drawn.getImageData(0, 0, image.width, image.height).data.buffer);
  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) ?? 0) + 1);
  const palette = [...counts].sort((a, b) => b[1] - a[1]).slice(0, 256).map(([colour]) => colour);
  const known = new Map(palette.map((colour, index) => [colour, index]));
  const away = (a, b) => [0, 8, 16].reduce((sum, bit) => sum + ((a >> bit & 255) - (b >> bit & 255)) ** 2, 0);
  for (const colour of counts.keys()) {
    if (known.has(colour)) continue;
    let best = 0;
    palette.forEach((other, index) => { if (away(colour, other) < away(colour, palette[best])) best = index; });
    known.set(colour, best);
  }
  let text = "";
  for (const pixel of pixels) text += String.fromCharCode(known.get(pixel));
  return { width: image.width, height: image.height, palette, indices: btoa(text) };
}"""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def encoded(width: int, height: int, palette: list[int], indices: bytes) -> bytes:
    """A PNG of 8-bit indices into a palette of 0xBBGGRR, at most 256 of them."""
    colours = b"".join(colour.to_bytes(4, "little")[:3] for colour in palette)
    rows = b"".join(b"\0" + indices[line * width : (line + 1) * width] for line in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", colours), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(*chunk) for chunk in chunks)


def smaller(page: Page, data: bytes) -> bytes:
    """The same picture in its 256 commonest colours, all others as the nearest of them; `page` does the reckoning."""
    found: dict[str, Any] = page.evaluate(_INDEXED, base64.b64encode(data).decode())
    palette = [int(colour) & 0xFFFFFF for colour in found["palette"]]
    return encoded(found["width"], found["height"], palette, base64.b64decode(found["indices"]))
