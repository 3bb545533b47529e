"""A dashboard as a page: its panels in their places, drawn from what their queries returned.

Not Grafana, but what Grafana shows of the same file: titles, units, thresholds, legends with last, maximum and mean,
and "No data" where there is none.
"""

from __future__ import annotations

import html
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboards.units import written

WIDTH, COLUMN, UNIT, GAP = (
    1360,
    56,
    34,
    8,
)  # pixels: of the page, of a column of 24, of a unit of height, between panels
HEAD, ROWS = 32, 4  # pixels of a panel's title; lines of a legend
PALETTE = (
    *("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2"),
    *("#b877d9", "#705da0", "#37872d", "#fade2a", "#447ebc", "#c15c17"),
)
COLOURS = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2", "purple": "#b877d9"}
STYLE = f"""
* {{ box-sizing: border-box; margin: 0 }}
body {{ background: #111217; color: #ccccdc; font: 12px/1.45 Inter, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif;
  width: {WIDTH}px; padding: 0 {GAP}px }}
header {{ display: flex; align-items: center; gap: 10px; height: 46px; font-size: 15px; font-weight: 500 }}
header .range {{ margin-left: auto; font-size: 12px; font-weight: 400; color: #9d9fa6 }}
nav {{ display: flex; gap: 8px; padding-bottom: 8px; color: #9d9fa6; flex-wrap: wrap }}
nav span {{ background: #181b1f; border: 1px solid #2a2d33; border-radius: 2px; padding: 2px 8px }}
nav b {{ color: #ccccdc; font-weight: 500 }}
main {{ position: relative }}
section {{ position: absolute; background: #181b1f; border: 1px solid #24262c; border-radius: 2px; overflow: hidden }}
section h2 {{ font-size: 13px; font-weight: 500; height: {HEAD}px; padding: 7px 9px; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis }}
section.row {{ background: none; border: 0 }} section.row h2 {{ font-size: 14px; padding: 6px 2px }}
.none {{ position: absolute; inset: {HEAD}px 0 0 0; display: grid; place-items: center; color: #9d9fa6 }}
.value {{ position: absolute; inset: {HEAD - 8}px 0 0 0; display: grid; place-items: center; font-weight: 500 }}
svg {{ position: absolute; left: 0; top: {HEAD}px }} svg text {{ fill: #9d9fa6; font-size: 11px }}
table {{ width: calc(100% - 16px); margin: 0 8px; border-collapse: collapse; table-layout: fixed }}
td, th {{ padding: 0 4px; height: 18px; text-align: right; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; font-weight: 400 }}
th {{ color: #6ea6ff }} td:first-child, th:first-child {{ text-align: left }}
.legend {{ position: absolute; left: 0; right: 0; bottom: 5px }} .legend col + col {{ width: 16% }}
.legend.wide col + col {{ width: 20% }}
.legend i {{ display: inline-block; width: 13px; height: 4px; border-radius: 2px; margin: 0 6px 2px 0 }}
.frame {{ margin-top: 2px }} .frame td, .frame th {{ text-align: left; height: 26px; border-bottom: 1px solid #24262c }}
.bars {{ position: absolute; inset: {HEAD}px 9px 8px 9px; display: flex; flex-direction: column; gap: 4px }}
.bars div {{ flex: 1 1 0; max-height: 34px; min-height: 15px; display: flex; align-items: center; gap: 8px }}
.bars span {{ width: 34%; text-align: right; overflow: hidden; text-overflow: ellipsis; white-space: nowrap }}
.bars u {{ flex: 1; background: #22252b; height: 80%; min-height: 11px; text-decoration: none }}
.bars u b {{ display: block; height: 100% }} .bars em {{ width: 17%; font-style: normal; font-weight: 500 }}
"""


@dataclass(frozen=True)
class Series:
    """`points`: (time in seconds, value), in order; of an instant query one."""

    name: str
    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True)
class Note:
    """An annotation: from `start` to `end`, which may be the same."""

    start: float
    end: float
    colour: str


@dataclass(frozen=True)
class Frame:
    """What the queries of a dashboard returned: `data` by the id of its panel, over `start` to `end` in steps."""

    start: float
    end: float
    step: float
    data: Mapping[int, Sequence[Series]]
    notes: Sequence[Note] = ()


def page(board: Mapping[str, Any], frame: Frame, chosen: Mapping[str, str]) -> str:
    """The document. Raises KeyError where a panel is of a type, or a value in a unit, that is not known here."""
    sections = "".join(_section(panel, frame) for panel in board["panels"])
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"]) * UNIT + GAP
    picks = "".join(f"<span>{html.escape(name)} <b>{html.escape(value)}</b></span>" for name, value in chosen.items())
    clock = " to ".join(time.strftime("%H:%M", time.gmtime(at)) for at in (frame.start, frame.end))
    return (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(board['title'])}</title><style>{STYLE}</style>"
        f"<header>{html.escape(board['title'])}<span class=range>{clock} UTC, a point every {frame.step:g} s</span>"
        f"</header><nav>{picks}</nav><main style='height:{height}px'>{sections}</main>"
    )


def _section(panel: Mapping[str, Any], frame: Frame) -> str:
    place = panel["gridPos"]
    width, height = place["w"] * COLUMN - GAP, place["h"] * UNIT - GAP
    style = f"left:{place['x'] * COLUMN}px;top:{place['y'] * UNIT}px;width:{width}px;height:{height}px"
    draw = KINDS[panel["type"]]
    series = [one for one in frame.data.get(panel["id"], ()) if one.points]
    inner = draw(panel, series, frame, (width - 2, height - 2)) if series or draw is _row else _NONE
    return f"<section class={panel['type']} style='{style}'><h2>{html.escape(panel['title'])}</h2>{inner}</section>"


_NONE = "<div class=none>No data</div>"


def _row(*_: Any) -> str:
    return ""


def colour(panel: Mapping[str, Any], value: float) -> str:
    """Of the highest threshold that the value reaches."""
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    reached = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
    return COLOURS[reached[-1]]


def _unit(panel: Mapping[str, Any]) -> str:
    return str(panel["fieldConfig"]["defaults"]["unit"])


def _stat(panel: Mapping[str, Any], series: Sequence[Series], _: Frame, size: tuple[float, float]) -> str:
    value = series[0].last
    text = written(value, _unit(panel))
    pixels = min(42, (size[0] - 20) / (0.6 * len(text)))
    return f"<div class=value style='font-size:{pixels:.0f}px;color:{colour(panel, value)}'>{html.escape(text)}</div>"


def _bars(panel: Mapping[str, Any], series: Sequence[Series], _: Frame, size: tuple[float, float]) -> str:
    fixed = panel["fieldConfig"]["defaults"]
    finite = [one.last for one in series if math.isfinite(one.last)]
    low, high = fixed.get("min", min([0, *finite])), fixed.get("max", max(finite, default=1))
    fits = int((size[1] - HEAD) // 19)
    lines = []
    for one in series[:fits]:
        share = min(1.0, max(0.0, (one.last - low) / ((high - low) or 1)))
        name, text, paint = html.escape(one.name), html.escape(written(one.last, _unit(panel))), colour(panel, one.last)
        fill = f"width:{share * 100:.1f}%;background:{paint}b0"
        lines.append(
            f"<div><span>{name}</span><u><b style='{fill}'></b></u><em style='color:{paint}'>{text}</em></div>"
        )
    return f"<div class=bars>{''.join(lines)}</div>"


def _table(panel: Mapping[str, Any], series: Sequence[Series], _: Frame, size: tuple[float, float]) -> str:
    """Time, labels and value of each, less what a transformation of the panel takes out."""
    hidden = {
        name
        for change in panel.get("transformations", ())
        if change["id"] == "organize"
        for name, out in change["options"].get("excludeByName", {}).items()
        if out
    }
    columns = [name for name in ("Time", *sorted({label for one in series for label in one.labels}), "Value")]
    columns = [name for name in columns if name not in hidden]
    rows = []
    for one in series[: int((size[1] - HEAD) // 27) - 1]:
        at = time.strftime("%H:%M:%S", time.gmtime(one.points[-1][0]))
        cells = {"Time": at, **one.labels, "Value": written(one.last, _unit(panel))}
        rows.append("".join(f"<td>{html.escape(cells.get(name, ''))}</td>" for name in columns))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    return f"<table class=frame><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


# -- over time ------------------------------------------------------------------------------------------------------


def _over_time(panel: Mapping[str, Any], series: Sequence[Series], frame: Frame, size: tuple[float, float]) -> str:
    shown = sorted(series, key=lambda one: one.name)
    lines = min(len(shown), ROWS)
    legend = _legend(panel, shown)
    width, height = size[0], size[1] - HEAD - 18 * (lines + 1) - 10
    return _chart(panel, shown, frame, (width, height)) + legend


def _legend(panel: Mapping[str, Any], shown: Sequence[Series]) -> str:
    rows, wide = [], False
    for index, one in enumerate(shown[:ROWS]):
        if index == ROWS - 1 and len(shown) > ROWS:
            rows.append(f"<td colspan=4>and {len(shown) - index} more</td>")
            break
        values = [value for _, value in one.points if math.isfinite(value)] or [math.nan]
        told = (one.last, max(values), sum(values) / len(values))
        texts = [written(value, _unit(panel)) for value in told]
        wide = wide or max(map(len, texts)) > 9
        cells = "".join(f"<td>{html.escape(text)}</td>" for text in texts)
        mark = f"<i style='background:{PALETTE[index % len(PALETTE)]}'></i>"
        rows.append(f"<td>{mark}{html.escape(one.name)}</td>{cells}")
    head = "<th>Name</th><th>Last *</th><th>Max</th><th>Mean</th>"
    body = "".join(f"<tr>{row}</tr>" for row in (head, *rows))
    kind = "legend wide" if wide else "legend"
    return f"<table class='{kind}'><colgroup><col><col><col><col></colgroup>{body}</table>"


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values from `low` to `high`, at most so many and one."""
    raw = (high - low) / most
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _stacked(panel: Mapping[str, Any]) -> bool:
    return bool(panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal")


def _layers(series: Sequence[Series], stacked: bool) -> list[list[tuple[float, float, float]]]:
    """Of each series (time, bottom, top)."""
    below: dict[float, float] = {}
    found = []
    for one in series:
        layer = []
        for at, value in one.points:
            if math.isfinite(value):
                bottom = below.get(at, 0.0) if stacked else 0.0
                layer.append((at, bottom, bottom + value))
                below[at] = bottom + value
        found.append(layer)
    return found


def _bounds(panel: Mapping[str, Any], layers: Sequence[Sequence[tuple[float, float, float]]]) -> tuple[float, float]:
    fixed = panel["fieldConfig"]["defaults"]
    tops = [top for layer in layers for _, _, top in layer] or [0.0]
    low, high = fixed.get("min", min(tops)), fixed.get("max", max(tops))
    if high <= low:
        high = low + 1
    return float(low), float(high if "max" in fixed else high + (high - low) * 0.06)


def _chart(panel: Mapping[str, Any], series: Sequence[Series], frame: Frame, size: tuple[float, float]) -> str:
    layers = _layers(series, _stacked(panel))
    low, high = _bounds(panel, layers)
    marks = ticks(low, high, 4)
    names = [written(round(mark, 12), _unit(panel)) for mark in marks]
    left, right, bottom = 14 + 6.3 * max(map(len, names)), size[0] - 12, size[1] - 20

    def x(at: float) -> float:
        return left + (at - frame.start) / (frame.end - frame.start) * (right - left)

    def y(value: float) -> float:
        return bottom - (min(max(value, low), high) - low) / (high - low) * (bottom - 6)

    parts = [
        f"<path d='M{left:.0f} {y(mark):.1f}H{right:.0f}' stroke='#2a2d33'/>"
        f"<text x='{left - 6:.0f}' y='{y(mark) + 4:.1f}' text-anchor='end'>{html.escape(name)}</text>"
        for mark, name in zip(marks, names, strict=True)
    ]
    parts += _moments(frame, x, bottom)
    custom = panel["fieldConfig"]["defaults"]["custom"]
    for index, layer in enumerate(layers):
        paint = PALETTE[index % len(PALETTE)]
        for piece in _pieces(layer, frame.step):
            parts.append(_area(piece, (x, y), (paint, custom), max(low, 0.0)))
    parts += [_noted(note, x, bottom) for note in frame.notes]
    return f"<svg width='{size[0]:.0f}' height='{size[1]:.0f}'>{''.join(parts)}</svg>"


def _moments(frame: Frame, x: Callable[[float], float], bottom: float) -> list[str]:
    """Labels of the time axis: at round minutes, at most six."""
    every = next(
        size for size in (60, 120, 300, 600, 1800, 3600, 10_800, 86_400) if (frame.end - frame.start) / size <= 6
    )
    first = math.ceil(frame.start / every) * every
    return [
        f"<path d='M{x(at):.1f} 6V{bottom:.0f}' stroke='#22252b'/>"
        f"<text x='{x(at):.1f}' y='{bottom + 15:.0f}' text-anchor='middle'>"
        f"{time.strftime('%H:%M', time.gmtime(at))}</text>"
        for at in range(
            int(first), int(frame.end - 0.04 * (frame.end - frame.start)) + 1, every
        )  # no label at the edge
    ]


def _pieces(layer: Sequence[tuple[float, float, float]], step: float) -> list[list[tuple[float, float, float]]]:
    """Cut where points are missing: a gap is not bridged."""
    pieces: list[list[tuple[float, float, float]]] = []
    for point in layer:
        if not pieces or point[0] - pieces[-1][-1][0] > step * 1.5:
            pieces.append([])
        pieces[-1].append(point)
    return pieces


def _area(
    piece: Sequence[tuple[float, float, float]],
    scales: tuple[Callable[[float], float], Callable[[float], float]],
    look: tuple[str, Mapping[str, Any]],
    floor: float,
) -> str:
    x, y = scales
    paint, custom = look
    top = [f"{x(at):.1f} {y(value):.1f}" for at, _, value in piece]
    back = [f"{x(at):.1f} {y(max(value, floor)):.1f}" for at, value, _ in reversed(piece)]
    if len(top) == 1:
        return f"<circle cx='{top[0].split()[0]}' cy='{top[0].split()[1]}' r='1.5' fill='{paint}'/>"
    fill = f"<path d='M{'L'.join(top + back)}Z' fill='{paint}' fill-opacity='{custom['fillOpacity'] / 100:g}'/>"
    return fill + f"<path d='M{'L'.join(top)}' fill='none' stroke='{paint}' stroke-width='{custom['lineWidth']}'/>"


def _noted(note: Note, x: Callable[[float], float], bottom: float) -> str:
    paint = COLOURS[note.colour]
    line = f"<path d='M{x(note.start):.1f} 6V{bottom:.0f}' stroke='{paint}' stroke-dasharray='4 3' opacity='.8'/>"
    wide = max(5.0, x(note.end) - x(note.start))
    return line + f"<rect x='{x(note.start) - 2:.1f}' y='{bottom:.0f}' width='{wide:.1f}' height='4' fill='{paint}'/>"


KINDS: dict[str, Callable[[Mapping[str, Any], Sequence[Series], Frame, tuple[float, float]], str]] = {
    "row": _row,
    "stat": _stat,
    "timeseries": _over_time,
    "bargauge": _bars,
    "table": _table,
}
"""Type of a panel -> its drawing."""
