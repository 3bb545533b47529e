"""Makes docs/live-page.png and docs/live-page-run.png: runs `tollgate demo` and takes pictures of its live page.

python docs/picture_page.py [SECONDS that the agents work, 900]   # needs Debian's chromium
python docs/picture_page.py --of URL                              # of a demo that is up
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
ADMIN = "127.0.0.1:18788"
SIZE = {"width": 1360, "height": 940}
LIMIT = 200_000  # bytes of a picture


def get(base: str, path: str) -> Any:
    with urllib.request.urlopen(base + path, timeout=10) as answer:  # noqa: S310 - our own http URL
        return json.load(answer)


def liveliest(base: str) -> str:
    """A run with sub-agents, and as many calls as there are."""
    runs = get(base, "/api/runs?limit=1000")["runs"]
    return str(max(runs, key=lambda run: (len(run["agents"]), run["outcome"] is not None, run["tool_calls"]))["id"])


def take(page: Page, base: str, path: str, name: str) -> None:
    page.goto(f"{base}/#/{path}")
    page.get_by_text("live", exact=True).wait_for()
    page.wait_for_timeout(1500)  # for the picture: until all of it is drawn
    target = HERE / name
    page.screenshot(path=target)
    print(f"{target}: {target.stat().st_size} bytes")
    if target.stat().st_size > LIMIT:
        sys.exit(f"{name} is larger than {LIMIT} bytes")


def pictures(base: str) -> None:
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scheme, path, name in (
            ("light", "", "live-page.png"),
            ("dark", f"run/{liveliest(base)}", "live-page-run.png"),
        ):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            take(page, base, path, name)
            page.close()
        browser.close()


def main(words: list[str]) -> None:
    if words[:1] == ["--of"]:
        pictures(words[1])
        return
    seconds = float(words[0]) if words else 900
    command = [sys.executable, "-m", "gateway.cli", "demo", "--admin", ADMIN, "--listen", "127.0.0.1:18787"]
    demo = subprocess.Popen([*command, "--seconds", str(seconds)])  # noqa: S603 - our own interpreter and module
    try:
        time.sleep(seconds * 0.98)  # while the last ones are still at work
        pictures(f"http://{ADMIN}")
    finally:
        demo.terminate()
        demo.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
