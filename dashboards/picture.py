"""Makes docs/dashboard-overview.png and docs/dashboard-cost.png: `make pictures`.

python -m dashboards.picture [SECONDS that the agents work, 900]   # needs Debian's chromium and prometheus
python -m dashboards.picture --of URL START END                     # of a Prometheus that has scraped one; Unix time

Runs `tollgate demo`, lets the real Prometheus scrape it with the shipped rules, asks it every query of the committed
dashboards as Grafana would, and draws what it answers. Grafana itself is not needed, and is not what is seen.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import sync_playwright

from dashboards.drawing import GAP, WIDTH, Frame, Note, Series, page
from dashboards.png import smaller
from gateway.testing.gateway import free_port

ROOT = Path(__file__).parents[1]
PICTURES = {"overview": "dashboard-overview.png", "costs": "dashboard-cost.png"}
LIMIT = 300_000  # bytes of a picture
POINTS = 240  # of a line, at most
SETTINGS = {"budgets": [{"scope": "team", "usd": 60, "per": "day"}]}  # such that agents have work all the time
_DEMO = (
    "import json, sys; from gateway.testing.demo import run; run(seconds=float(sys.argv[2]), "
    "overrides=json.loads(sys.argv[1]))"
)
_NAME = re.compile(r"\{\{\s*(\w+)\s*\}\}")


def scrape_interval() -> int:
    """Of the shipped configuration, in seconds."""
    settings = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    return int(settings["global"]["scrape_interval"].removesuffix("s"))


class Source:
    """A Prometheus, asked as Grafana asks it for the time from `start` to `end`."""

    def __init__(self, url: str, start: float, end: float) -> None:
        scrape = scrape_interval()
        step = max(scrape, -(-int(end - start) // POINTS // 5) * 5)
        self.url, self.step = url, step
        self.start, self.end = start - start % step, end - end % step
        every = max(step + scrape, 4 * scrape)
        self._variables = {"$__rate_interval": f"{every}s", "$__range": f"{int(end - start)}s"}

    def frame(self, board: Mapping[str, Any]) -> Frame:
        """What all queries of a dashboard return, each variable set to All."""
        data = {panel["id"]: self._asked(panel) for panel in board["panels"] if panel.get("targets")}
        notes = [note for one in board["annotations"]["list"] if "expr" in one for note in self._notes(one)]
        return Frame(self.start, self.end, self.step, data, notes)

    def _asked(self, panel: Mapping[str, Any]) -> list[Series]:
        found = []
        for target in panel["targets"]:
            for one in self._results(target["expr"], bool(target.get("range"))):
                labels = {name: text for name, text in one["metric"].items() if name != "__name__"}
                raw = one["values"] if "values" in one else [one["value"]]
                points = [(float(at), float(value)) for at, value in raw]
                found.append(
                    Series(legend(target.get("legendFormat", "__auto"), labels, target["expr"]), labels, points)
                )
        return found

    def _notes(self, annotation: Mapping[str, Any]) -> Iterator[Note]:
        """A stretch of points of one series is one note."""
        step = float(annotation["step"].removesuffix("s"))
        for one in self._results(annotation["expr"], True, step):
            times = [float(at) for at, value in one["values"] if float(value)]
            begin = 0
            for index, at in enumerate(times):
                if index + 1 == len(times) or times[index + 1] - at > step * 1.5:
                    yield Note(times[begin], at, annotation["iconColor"])
                    begin = index + 1

    def _results(self, expr: str, ranged: bool, step: float = 0) -> list[dict[str, Any]]:
        """Raises urllib.error.HTTPError for a query that Prometheus refuses."""
        for name, value in self._variables.items():
            expr = expr.replace(name, value)
        expr = re.sub(r"\$\w+", ".*", expr)
        if ranged:
            asked = {"query": expr, "start": self.start, "end": self.end, "step": step or self.step}
        else:
            asked = {"query": expr, "time": self.end}
        path = "/api/v1/query_range?" if ranged else "/api/v1/query?"
        with urllib.request.urlopen(self.url + path + urllib.parse.urlencode(asked), timeout=60) as answer:  # noqa: S310
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


def legend(form: str, labels: Mapping[str, str], expr: str) -> str:
    """What a series is called: by the form of its query; by its labels, or its query, where that is left to Grafana."""
    if form != "__auto":
        return _NAME.sub(lambda found: labels.get(found[1], ""), form)
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items())) or expr


def load(uid: str) -> dict[str, Any]:
    board: dict[str, Any] = json.loads((ROOT / f"dashboards/{uid}.json").read_text())
    return board


def document(board: Mapping[str, Any], source: Source) -> str:
    chosen = {one.get("label") or one["name"]: "All" for one in board["templating"]["list"]}
    return page(board, source.frame(board), {**chosen, "Data source": "Prometheus"})


def take(documents: Mapping[str, str], directory: Path = ROOT / "docs") -> None:
    """Name of a file -> a page to draw. Ends the program where a picture is too large."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, text in documents.items():
            shown = browser.new_page(viewport={"width": WIDTH + GAP, "height": 600})
            shown.set_content(text)
            target = directory / name
            target.write_bytes(smaller(shown, shown.screenshot(full_page=True)))
            shown.close()
            print(f"{target}: {target.stat().st_size} bytes")
            if target.stat().st_size > LIMIT:
                sys.exit(f"{name} is larger than {LIMIT} bytes")
        browser.close()


@contextlib.contextmanager
def watched(directory: Path, admin: str) -> Iterator[str]:
    """The URL of a Prometheus that scrapes the gateway, as in deploy/ but for the address."""
    settings = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    settings["rule_files"] = [str(ROOT / "alerts/*.yaml")]
    del settings["alerting"]
    targets = [{"targets": [admin], "labels": {"instance": "gateway"}}]
    settings["scrape_configs"] = [{"job_name": "tollgate", "static_configs": targets}]
    (directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}"]
    with (
        (directory / "output.log").open("wb") as log,
        ended([*command, "--storage.tsdb.path=data"], cwd=directory, stdout=log, stderr=log),
    ):
        yield f"http://{address}"


@contextlib.contextmanager
def ended(command: Sequence[str], **options: Any) -> Iterator[None]:
    """A process that does not outlive the block."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, **options)  # noqa: S603 - programs named here
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def pictures(url: str, start: float, end: float) -> None:
    source = Source(url, start, end)
    take({name: document(load(uid), source) for uid, name in PICTURES.items()})


def main(words: list[str]) -> None:
    if words[:1] == ["--of"]:
        pictures(words[1], float(words[2]), float(words[3]))
        return
    seconds = float(words[0]) if words else 900
    listen, admin = (f"127.0.0.1:{free_port()}" for _ in range(2))
    demo = [sys.executable, "-c", _DEMO, json.dumps({"listen": listen, "admin": admin, **SETTINGS}), str(seconds)]
    with tempfile.TemporaryDirectory() as directory, watched(Path(directory), admin) as url:
        start = time.time()
        with ended(demo):
            time.sleep(seconds * 0.98)  # while the last ones are still at work
            pictures(url, start, time.time())


if __name__ == "__main__":
    main(sys.argv[1:])
