"""Hit rate against the share of wrong hits, as SVG. Written by hand: no library of plots is worth one picture."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from msgspec import Struct

WIDTH, HEIGHT = 720, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 56, 60
_INK, _GRID, _PAPER = "#1a1a1a", "#d8d8d8", "#ffffff"
_BESIDE = (18, 4, -10)  # where labels of neighbouring points stand: below, level, above
_COLOURS = ("#b3261e", "#1f5fbf", "#3d3d3d")


class Point(Struct, frozen=True):
    label: str
    wrong: float  # share of hits, 0 to 1
    hits: float  # share of questions


class Line(Struct, frozen=True):
    name: str
    points: Sequence[Point]


def draw(title: str, lines: Sequence[Line]) -> str:
    """Dark on light; each line in a colour and with a mark of its own."""
    most = _ceiling(max([point.wrong for line in lines for point in line.points], default=0.0))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="Helvetica, Arial, sans-serif" font-size="13" fill="{_INK}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{_PAPER}"/>',
        f'<text x="{_LEFT}" y="24" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_grid(most),
    ]
    for number, line in enumerate(lines):
        parts += _line(number, line, most)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _ceiling(most: float) -> float:
    """A round number that is not less."""
    for step in (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5):
        if most <= step:
            return step
    return 1.0


def _x(wrong: float, most: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * wrong / most


def _y(hits: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * hits


def _grid(most: float) -> list[str]:
    parts = []
    for step in range(6):
        share, wrong = step / 5, most * step / 5
        x, y = _x(wrong, most), _y(share)
        parts += [
            f'<path d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}M{x:.1f} {_TOP}V{HEIGHT - _BOTTOM}" stroke="{_GRID}"/>',
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{share:.0%}</text>',
            f'<text x="{x:.1f}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{wrong * 100:.3g}%</text>',
        ]
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    return [
        *parts,
        f'<text x="{(_LEFT + WIDTH - _RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">wrong ones among hits</text>',
        f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">answered from the cache</text>',
    ]


def _line(number: int, line: Line, most: float) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    at = [(_x(point.wrong, most), _y(point.hits)) for point in line.points]
    path = "M" + "L".join([f"{x:.1f} {y:.1f}" for x, y in at])
    parts = [f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'] if len(at) > 1 else []
    for place, ((x, y), point) in enumerate(zip(at, line.points, strict=True)):
        end = x > WIDTH * 0.8
        parts.append(_mark(number, x, y, colour))
        parts.append(
            f'<text x="{x - 9 if end else x + 9:.1f}" y="{y + _BESIDE[place % len(_BESIDE)]:.1f}" fill="{colour}" '
            f'text-anchor="{"end" if end else "start"}">{escape(point.label)}</text>'
        )
    left = _LEFT + 210 * number
    return [*parts, _mark(number, left + 6, 42, colour), f'<text x="{left + 18}" y="46">{escape(line.name)}</text>']


def _mark(number: int, x: float, y: float, colour: str) -> str:
    shapes = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>',
        f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" fill="{colour}"/>',
        f'<path d="M{x:.1f} {y - 6:.1f}l6 11h-12z" fill="{colour}"/>',
    )
    return shapes[number % len(shapes)]
