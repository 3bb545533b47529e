"""Cost against quality as an SVG picture: the curve of learned choice, and each model by itself."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from gateway.policy.selection_curve import Point

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 440, 70, 30, 30, 60
_TICKS = 5


def picture(points: Sequence[Point], singles: Sequence[tuple[str, float, float]]) -> str:
    """`singles`: (model, cost, quality)."""
    low = min([one.quality for one in points] + [quality for _, _, quality in singles])
    high = max([one.quality for one in points] + [quality for _, _, quality in singles])
    low, high = low - (high - low or 1) * 0.05, high + (high - low or 1) * 0.05
    most = max([one.cost for one in points] + [cost for _, cost, _ in singles]) * 1.05 or 1.0

    def at(cost: float, quality: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * cost / most
        return round(across, 1), round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (quality - low) / (high - low), 1)

    line = " ".join("{},{}".format(*at(one.cost, one.quality)) for one in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        *_axes(low, high, most),
        f'<polyline points="{line}" fill="none" stroke="#1565c0" stroke-width="2"/>',
    ]
    for name, cost, quality in singles:
        x, y = at(cost, quality)
        anchor, shift = ("end", -7) if x > WIDTH * 0.6 else ("start", 7)
        parts.append(f'<circle cx="{x}" cy="{y}" r="4" fill="#c62828"/>')
        parts.append(f'<text x="{x + shift}" y="{y + 4}" text-anchor="{anchor}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _axes(low: float, high: float, most: float) -> list[str]:
    floor, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [f'<path d="M{LEFT},{TOP}V{floor}H{right}" fill="none" stroke="#444"/>']
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        x, y = LEFT + (right - LEFT) * share, floor - (floor - TOP) * share
        parts.append(f'<text x="{x:.1f}" y="{floor + 18}" text-anchor="middle">{most * share:.2f}</text>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{low + (high - low) * share:.3f}</text>')
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 16}" text-anchor="middle">'
                 "mean cost of a call (1: the dearest model)</text>")  # fmt: skip
    parts.append(f'<text x="18" y="{(TOP + floor) / 2}" text-anchor="middle" '
                 f'transform="rotate(-90 18 {(TOP + floor) / 2})">mean quality</text>')  # fmt: skip
    return parts
