"""Real Prometheus and Alertmanager on loopback, and a webhook that takes what they send.

The shipped rules run as they are but for time: one of their minutes takes two seconds (`quick`), so that an alert that
waits five minutes is seen to fire, and to resolve, while one looks.
"""

from __future__ import annotations

import copy
import http.server
import json
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from alerts import artefacts
from alerts.alertmanager import configuration
from alerts.parts import Links
from gateway.config.schema_slo import DEFAULTS
from gateway.recorder import slo_rules
from gateway.testing.gateway import free_port

PROGRAMS = {"prometheus": "prometheus", "promtool": "prometheus", "prometheus-alertmanager": "prometheus-alertmanager"}
MISSING = sorted({package for program, package in PROGRAMS.items() if shutil.which(program) is None})
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_WINDOW = re.compile(r"(\[|:|offset )(\d+)([smhdw])\b")
_DURATION = re.compile(r"(\d+)([smhdw])\Z")
RUNBOOK_PATH = "/user/RUNBOOK.md"


def _quick(count: str, unit: str) -> str:
    return f"{int(count) * _SECONDS[unit] * 1000 // 30}ms"


def quick(group: Mapping[str, Any]) -> dict[str, Any]:
    """A minute of the rules is two seconds."""
    made = copy.deepcopy(dict(group))
    made["interval"] = "1s"
    for rule in made["rules"]:
        rule["expr"] = _WINDOW.sub(lambda found: found[1] + _quick(found[2], found[3]), rule["expr"])
        for name in ("for", "keep_firing_for"):
            if name in rule:
                rule[name] = _DURATION.sub(lambda found: _quick(found[1], found[2]), rule[name])
    return made


class Webhook:
    """Takes notifications. `seen`: (receiver, status, alert) in the order of their arrival."""

    def __init__(self) -> None:
        seen: list[tuple[str, str, dict[str, Any]]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                seen.extend((self.path.strip("/"), alert["status"], alert) for alert in body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.seen = seen
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def names(self, status: str) -> set[str]:
        return {alert["labels"]["alertname"] for _, state, alert in list(self.seen) if state == status}


class Server:
    """A process with an HTTP port; its output is in `log`."""

    def __init__(self, directory: Path, command: list[str], port: int, ready: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "output.log"
        self._command, self._directory, self._ready = command, directory, ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._directory, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            until(lambda: self.get(self._ready), lambda _: True, what=lambda: self.log.read_text()[-2000:])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return str(answer.read().decode())


class Alertmanager(Server):
    """The shipped routing, without its pauses."""

    def __init__(self, directory: Path, webhooks: str) -> None:
        directory.mkdir()
        settings = configuration(webhooks)
        for route in (settings["route"], *settings["route"]["routes"]):
            route |= {"group_wait": "0s", "group_interval": "1s"}
        (directory / "alertmanager.yml").write_text(yaml.safe_dump(settings))
        port = free_port()
        options = [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--storage.path=data"]
        super().__init__(
            directory, ["prometheus-alertmanager", "--config.file=alertmanager.yml", *options], port, "/-/ready"
        )


class Prometheus(Server):
    """Scrapes its targets every two seconds, with the shipped rules. `history`: OpenMetrics of before."""

    def __init__(self, directory: Path, alertmanager: str, assets: Path, history: str) -> None:
        directory.mkdir()
        self.port = free_port()
        self.runbook = f"http://127.0.0.1:{self.port}{RUNBOOK_PATH}"
        links = Links(runbook=self.runbook)
        rules = {**artefacts.rules(links), "slo": slo_rules.groups(DEFAULTS, slo_rules.Links(links.runbook), 1)}
        for name, content in rules.items():
            made = {"groups": [quick(group) for group in content["groups"]]}
            (directory / f"{name}.yaml").write_text(yaml.safe_dump(made))
        self._targets = directory / "targets.json"
        settings = {
            "global": {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "1s"},
            "rule_files": [f"{name}.yaml" for name in rules],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [alertmanager.removeprefix("http://")]}]}]},
            "scrape_configs": [
                {"job_name": "tollgate", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]}
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(settings))
        (directory / "history.txt").write_text(history)
        blocks = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"]
        done = subprocess.run(blocks, cwd=directory, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        options = [
            f"--web.listen-address=127.0.0.1:{self.port}", f"--web.user-assets={assets}",
            "--enable-feature=exemplar-storage", "--storage.tsdb.path=data", "--rules.alert.resend-delay=1s",
        ]  # fmt: skip
        super().__init__(directory, ["prometheus", "--config.file=prometheus.yml", *options], self.port, "/-/ready")

    def scrape(self, **targets: str) -> None:
        """instance=HOST:PORT of all that is scraped from now on."""
        listed = [{"targets": [address], "labels": {"instance": name}} for name, address in targets.items()]
        partial = self._targets.with_suffix(".new")
        partial.write_text(json.dumps(listed))
        partial.replace(self._targets)

    def query(self, expr: str) -> list[dict[str, Any]]:
        """An instant query. Raises urllib.error.HTTPError for one that Prometheus refuses."""
        found = json.loads(self.get("/api/v1/query?" + urllib.parse.urlencode({"query": expr})))
        assert found["status"] == "success", found
        result: list[dict[str, Any]] = found["data"]["result"]
        return result

    def fired(self, over: str = "30m") -> set[str]:
        """Alerts that were firing at some time."""
        found = self.query(f'group by (alertname) (last_over_time(ALERTS{{alertstate="firing"}}[{over}]))')
        return {one["metric"]["alertname"] for one in found}

    def firing(self) -> set[str]:
        found = self.query('group by (alertname) (ALERTS{alertstate="firing"})')
        return {one["metric"]["alertname"] for one in found}


def until(
    look: Callable[[], Any], good: Callable[[Any], bool], seconds: float = 60, what: Callable[[], str] = str
) -> Any:
    """What `look` returns as soon as it is `good`. Raises TimeoutError."""
    end = time.monotonic() + seconds
    seen: Any = None
    while True:
        try:
            seen = look()
            if good(seen):
                return seen
        except (urllib.error.URLError, ConnectionError) as fault:
            seen = fault
        if time.monotonic() > end:
            raise TimeoutError(f"still not so after {seconds} s: {seen}\n{what()}")
        time.sleep(0.2)
