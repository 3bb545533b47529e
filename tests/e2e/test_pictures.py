"""A picture of dashboards from a real gateway, scraped by a real Prometheus, drawn by a real Chromium."""

from __future__ import annotations

import shutil
import struct
import time
from pathlib import Path

import pytest

from dashboards.drawing import GAP, WIDTH
from dashboards.picture import Source, document, load, take, watched
from gateway.testing.fake_upstream import FakeUpstream
from gateway.testing.gateway import RunningGateway
from tests.e2e.conftest import upstreams
from tests.e2e.test_page import call
from tests.e2e.watchers import until

MISSING = [program for program in ("prometheus", "chromium") if shutil.which(program) is None]
pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (no picture is drawn)"),
    pytest.mark.timeout(300),
]


def test_what_the_gateway_counted_is_in_the_picture(tmp_path: Path) -> None:
    start = time.time()
    with (
        FakeUpstream(3) as fake,
        RunningGateway(upstreams(fake.url)) as gate,
        watched(tmp_path, gate.config["admin"]) as url,
    ):
        board = load("overview")

        def page() -> str:
            call(gate, "a-run", "planner")
            return document(board, Source(url, start, time.time()))

        # The second scrape knows of growth.
        text = until(page, lambda text: ">planner</span>" in text and "</i>ok</td>" in text, seconds=120)
        take({"picture.png": text}, tmp_path)
        costs = document(load("costs"), Source(url, start, time.time()))
        assert ">Tollgate / Cost &amp; budgets<" in costs
        assert "</i>default</td>" in costs
    data = (tmp_path / "picture.png").read_bytes()
    width, height = struct.unpack_from(">II", data, 16)
    assert width == WIDTH + GAP
    assert height > 1000, "all of it"
