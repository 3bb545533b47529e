"""Pictures of dashboards: all that the dashboards use can be drawn, and what is drawn is what the queries returned."""

from __future__ import annotations

import copy
import html.parser
import json
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest

from dashboards.drawing import COLOURS, KINDS, Frame, Note, Series, page, ticks
from dashboards.picture import PICTURES, legend
from dashboards.png import encoded
from dashboards.units import UNITS, written

ROOT = Path(__file__).parents[1]
BOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "dashboards").glob("*.json"))}
VOID = {"meta", "col"}


class Read(html.parser.HTMLParser):
    """Text by section, and what is not closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "section":
            self.sections.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open.pop() != tag:
            assert tag in ("html", "svg", "g") or self.open, tag

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        pass

    def handle_data(self, data: str) -> None:
        if self.sections:
            self.sections[-1] += f"|{data}"


def board(kind: str, unit: str = "short", **defaults: Any) -> dict[str, Any]:
    custom = {"fillOpacity": 10, "lineWidth": 1}
    fixed = {"unit": unit, "custom": custom, "thresholds": {"steps": [{"value": None, "color": "green"}]}, **defaults}
    place = {"x": 0, "y": 0, "w": 8, "h": 8}
    return {"title": "B", "panels": [
        {"id": 1, "type": kind, "title": "P", "gridPos": place, "fieldConfig": {"defaults": fixed}}
    ]}  # fmt: skip


def drawn(made: dict[str, Any], *series: Series, notes: tuple[Note, ...] = ()) -> str:
    return page(made, Frame(0, 600, 10, {panel["id"]: series for panel in made["panels"]}, notes), {})


def line(name: str, *values: float, start: float = 0) -> Series:
    return Series(name, {"name": name}, [(start + 10 * index, value) for index, value in enumerate(values)])


@pytest.mark.parametrize("uid", BOARDS)
def test_every_type_unit_and_colour_of_the_dashboards_can_be_drawn(uid: str) -> None:
    made = BOARDS[uid]
    assert {panel["type"] for panel in made["panels"]} <= set(KINDS)
    fixed = [panel["fieldConfig"]["defaults"] for panel in made["panels"] if panel["type"] != "row"]
    assert {one["unit"] for one in fixed} <= set(UNITS)
    assert {step["color"] for one in fixed for step in one["thresholds"]["steps"]} <= set(COLOURS)
    assert {one["iconColor"] for one in made["annotations"]["list"] if "expr" in one} <= set(COLOURS)
    found = Read(drawn(made, line("one", 1, 2, 3), line("two", 0.5, 0.25), notes=(Note(100, 200, "red"),)))
    assert len(found.sections) == len(made["panels"])
    for panel, text in zip(made["panels"], found.sections, strict=True):
        assert text.startswith(f"|{panel['title']}")
        assert "No data" not in text
    empty = Read(drawn(made))
    assert sum("No data" in text for text in empty.sections) == sum(one["type"] != "row" for one in made["panels"])


def test_every_type_that_is_drawn_is_one_that_dashboards_have() -> None:
    assert set(KINDS) == {panel["type"] for made in BOARDS.values() for panel in made["panels"]}
    assert set(PICTURES) <= set(BOARDS)


def test_a_type_or_a_unit_that_is_not_known_is_no_picture() -> None:
    with pytest.raises(KeyError, match="heatmap"):
        drawn(board("heatmap"), line("a", 1))
    with pytest.raises(KeyError, match="furlongs"):
        drawn(board("stat", "furlongs"), line("a", 1))
    with pytest.raises(KeyError, match="mauve"):
        drawn(board("stat", thresholds={"steps": [{"value": None, "color": "mauve"}]}), line("a", 1))


def test_values_are_written_as_people_read_them() -> None:
    assert [written(*one) for one in (
        (0, "short"), (1234, "short"), (0.00123456, "short"), (0.1234, "percentunit"), (-19.6, "percentunit"),
        (2.5, "currencyUSD"), (12_345, "currencyUSD"), (-0.5, "currencyUSD"), (0.0104, "s"), (5400, "s"), (0, "s"),
        (8.136, "reqps"), (2048, "bytes"), (1500, "Bps"), (float("nan"), "s"), (float("inf"), "short"),
    )] == [
        "0", "1.23 K", "0.00123", "12.3%", "-1960%", "$2.5", "$12.3K", "-$0.5", "10.4 ms", "1.5 hours", "0 s",
        "8.14 req/s", "2 KiB", "1.5 kB/s", "nan", "inf",
    ]  # fmt: skip


def test_ticks_are_round_and_few() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert ticks(-3, 17, 4) == pytest.approx([0, 5, 10, 15])
    for high in (0.0003, 0.7, 9, 101, 4e6):
        assert 2 <= len(ticks(0, high, 4)) <= 5


def test_a_legend_has_last_maximum_and_mean_and_says_what_it_leaves_out() -> None:
    (text,) = Read(drawn(board("timeseries"), line("a", 1, 3, 2))).sections
    assert text.endswith("|Name|Last *|Max|Mean|a|2|3|2")
    (text,) = Read(drawn(board("timeseries"), *(line(f"s{n}", n) for n in range(9)))).sections
    assert "|s2|" in text
    assert text.endswith("and 6 more")


def heights(text: str) -> list[list[float]]:
    """y of every line, in the order in which they are drawn."""
    found = re.findall(r"<path d='M([^Z']+)' fill='none'", text)
    return [[float(point.split()[1]) for point in path.split("L")] for path in found]


def test_stacked_series_stand_on_each_other_and_others_do_not() -> None:
    custom = {"fillOpacity": 40, "lineWidth": 1, "stacking": {"mode": "normal"}}
    one, two = heights(drawn(board("timeseries", min=0, max=4, custom=custom), line("a", 1, 1), line("b", 2, 2)))
    alone, other = heights(drawn(board("timeseries", min=0, max=4), line("a", 1, 1), line("b", 2, 2)))
    assert one == alone
    assert two[0] < other[0] < one[0], "y grows downwards"


def test_a_gap_is_not_bridged_and_a_lone_point_is_seen() -> None:
    points = [(0.0, 1.0), (10.0, 1.0), (200.0, 2.0), (210.0, 2.0), (400.0, 3.0)]
    text = drawn(board("timeseries"), Series("a", {}, points))
    assert len(heights(text)) == 2
    assert text.count("<circle") == 1


def test_a_value_has_the_colour_of_its_threshold() -> None:
    steps = [{"value": None, "color": "red"}, {"value": 0.1, "color": "orange"}, {"value": 0.2, "color": "green"}]
    for value, name in ((-1, "red"), (0.1, "orange"), (0.3, "green")):
        assert f"color:{COLOURS[name]}'" in drawn(
            board("bargauge", max=1, thresholds={"steps": steps}), line("a", value)
        )


def test_a_table_leaves_out_what_its_panel_does() -> None:
    made = board("table")
    (text,) = Read(drawn(made, Series("a", {"alertname": "Down"}, [(0, 1)]))).sections
    assert text == "|P|Time|alertname|Value|00:00:00|Down|1"
    shorter = copy.deepcopy(made)
    hidden = {"Time": True, "Value": True}
    shorter["panels"][0]["transformations"] = [{"id": "organize", "options": {"excludeByName": hidden}}]
    (text,) = Read(drawn(shorter, Series("a", {"alertname": "<Down>"}, [(0, 1)]))).sections
    assert text == "|P|alertname|<Down>"


def test_series_are_called_what_their_query_says() -> None:
    assert legend("{{agent}}: {{ outcome }}", {"agent": "bot", "outcome": "ok"}, "x") == "bot: ok"
    assert legend("__auto", {"b": "2", "a": "1"}, "x") == "a=1, b=2"
    assert legend("__auto", {}, "sum (x)") == "sum (x)"


def test_a_small_png_is_one() -> None:
    data = encoded(3, 2, [0x0000FF, 0x00FF00], bytes([0, 1, 0, 1, 0, 1]))
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        kind, inner = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack_from(">I", data, at + 8 + size) == (zlib.crc32(kind + inner),)
        chunks[kind], at = inner, at + 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (3, 2, 8, 3, 0, 0, 0)
    assert chunks[b"PLTE"] == b"\xff\0\0\0\xff\0", "red, green"
    assert zlib.decompress(chunks[b"IDAT"]) == b"\0\0\1\0" + b"\0\1\0\1"


def test_the_pictures_of_the_readme_are_small() -> None:
    readme = (ROOT / "README.md").read_text()
    for name in PICTURES.values():
        assert f"(docs/{name})" in readme
        assert (ROOT / "docs" / name).stat().st_size < 300_000
