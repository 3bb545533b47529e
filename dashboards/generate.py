"""Writes everything that is generated: `make dashboards`, or `python -m dashboards.generate`.

Options set where alerts lead to. `--check` writes nothing and fails where a file is not what would be written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from alerts import artefacts
from alerts.parts import Links
from dashboards.boards import BOARDS
from dashboards.parts import build

ROOT = Path(__file__).parents[1]
CHART = "deploy/chart/files"


def files(links: Links | None = None) -> dict[str, str]:
    """Path from the root of the repository -> text."""
    found = {f"dashboards/{board.uid}.json": build(board) for board in BOARDS}
    found |= artefacts.files(links or Links())
    # Charts read no file from outside of them.
    rules = {
        f"{CHART}/rules/{Path(name).name}": found[name]
        for name in found
        if name.startswith("alerts/") and name.count("/") == 1 and name.endswith(".yaml")
    }
    boards = {f"{CHART}/{name}": found[name] for name in found if name.startswith("dashboards/")}
    return {**found, **rules, **boards}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runbook", default=Links.runbook, metavar="URL", help="of alerts/RUNBOOK.md (%(default)s)")
    parser.add_argument("--grafana", default=Links.grafana, metavar="URL", help="of Grafana (%(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where something is not fresh")
    options = parser.parse_args()
    stale = []
    for name, text in files(Links(options.runbook, options.grafana)).items():
        path = ROOT / name
        if path.exists() and path.read_text() == text:
            continue
        stale.append(name)
        if not options.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    print("\n".join(stale) or "all fresh")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
