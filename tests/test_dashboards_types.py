"""Dashboards have the type that Grafana itself gives them: TypeScript says so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = ROOT / ".clients" / "node_modules"
TYPES = MODULES / "@grafana" / "schema" / "dist" / "types" / "raw" / "dashboard" / "x" / "types.gen"
BOARDS = sorted((ROOT / "dashboards").glob("*.json"))

pytestmark = pytest.mark.skipif(
    shutil.which("node") is None
    or not TYPES.with_suffix(".gen.d.ts").exists()
    or not (MODULES / "typescript").exists(),
    reason="no npm @grafana/schema and typescript: run tests/e2e/install_clients.sh",
)

# Files hold the values of enumerations as text; their type wants the enumeration.
PLAIN = """
type Plain<T> = T extends string ? `${T}`
  : T extends number ? (`${T}` extends `${infer N extends number}` ? N : T)
  : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
"""
ALLOWED = re.compile(r"""error TS2353: .*'"expr"' does not exist in type '\{ builtIn\?""")
"""An annotation has fields of its data source, which the type leaves to that: `expr` is the first of them."""


def checked(directory: Path, texts: dict[str, str]) -> list[str]:
    """What the compiler says of dashboards, by name."""
    names = []
    for name, text in texts.items():
        path = directory / f"{name}.ts"
        path.write_text(
            f'import type {{ Dashboard }} from "{TYPES}";\n{PLAIN}\nexport const made: Plain<Dashboard> = {text};\n'
        )
        names.append(str(path))
    options = ["--noEmit", "--strict", "--skipLibCheck", "--moduleResolution", "bundler", "--module", "esnext"]
    done = subprocess.run(
        ["node", MODULES / "typescript" / "bin" / "tsc", *options, *names],
        cwd=directory, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if "error" in line and not ALLOWED.search(line)]


def test_grafanas_own_type_fits(tmp_path: Path) -> None:
    assert checked(tmp_path, {path.stem: path.read_text() for path in BOARDS}) == []


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    text = BOARDS[0].read_text().replace('"editable": false', '"editable": "no"')
    (line,) = checked(tmp_path, {"wrong": text})
    assert "TS2322" in line
