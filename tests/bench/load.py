"""Builds and runs the two C programs: the upstream that answers at once, and the load generator."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILD = HERE / "build"
PROGRAMS = ("mock_llm", "loadgen")
EVENTS = 66  # of one streamed answer of mock_llm: 64 pieces of text, usage, [DONE]
LATE_SECONDS = 90  # the load generator itself gives up 30 s after its time


class BenchFailed(Exception):
    """Nothing that can be measured; the message says why."""


def build() -> None:
    """Compile what is older than its source. Raises BenchFailed."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    BUILD.mkdir(exist_ok=True)
    for name in PROGRAMS:
        source, program = HERE / f"{name}.c", BUILD / name
        if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
            continue
        if compiler is None:
            raise BenchFailed("no C compiler (Debian: apt install gcc libc6-dev)")
        made = subprocess.run(
            [compiler, "-O2", "-Wall", "-Wextra", "-o", program, source], capture_output=True, text=True, timeout=120
        )
        if made.returncode:
            raise BenchFailed(f"{source.name} does not compile (Debian: apt install gcc libc6-dev):\n{made.stderr}")


def command(core: int, port: int, body: Path, path: str, headers: Sequence[str], **options: Any) -> list[str]:
    found = ["taskset", "-c", str(core), str(BUILD / "loadgen"), "--port", str(port), "--path", path]
    found += ["--body", str(body), "--warm", "0"]
    for header in headers:
        found += ["--header", header]
    for name, value in options.items():
        found += [f"--{name}", str(value)]
    return found


def run(core: int, port: int, body: Path, path: str, headers: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    """Load for `secs` seconds or `count` calls, and what came of it (times in microseconds). Raises BenchFailed."""
    patience = options.get("secs", 5) + LATE_SECONDS
    words = command(core, port, body, path, headers, **options)
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=patience, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        raise BenchFailed(f"the load generator did not end in {patience:.0f} s") from None
    if told.returncode:
        raise BenchFailed(told.stderr.strip() or f"the load generator ended with {told.returncode}")
    found: dict[str, Any] = json.loads(told.stdout)
    return found
