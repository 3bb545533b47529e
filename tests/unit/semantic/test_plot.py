import re
from xml.etree import ElementTree

from gateway.semantic.plot import HEIGHT, WIDTH, Line, Point, draw

LINES = [
    Line("fixed <thresholds>", [Point(".80", 0.17, 0.81), Point(".95", 0.04, 0.6)]),
    Line("ours", [Point("1%", 0.004, 0.7)]),
]


def circles(svg):
    found = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', svg)]
    return found[:-1]  # the last is of the legend


def test_it_is_xml_that_names_everything():
    root = ElementTree.fromstring(draw("A & B", LINES))
    texts = ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"A & B", "fixed <thresholds>", "ours", ".80", "1%", "20%", "100%"} <= set(texts)


def test_more_hits_are_higher_and_more_wrong_ones_are_farther_right():
    (right, high), (left, low) = circles(draw("", LINES))
    assert left < right
    assert high < low
    assert all(0 < x < WIDTH and 0 < y < HEIGHT for x, y in circles(draw("", LINES)))


def test_the_axis_holds_what_is_drawn():
    for wrong in (0.0, 0.004, 0.03, 0.6, 1.0):
        ((x, _),) = circles(draw("", [Line("", [Point("", wrong, 0.5)])]))
        assert x <= WIDTH - 24


def test_nothing_to_draw_is_an_empty_picture():
    ElementTree.fromstring(draw("", []))
