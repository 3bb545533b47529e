"""Where the compiled catalogue comes from: the package, the state directory, or a fresh compilation.

The package ships the catalogue of the genai-prices it was released with. When another version is installed, it is
compiled once, in a process of its own, and kept in the state directory under a name that states the versions.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from gateway.policy.price_rules import FORMAT
from gateway.policy.pricing import PriceTable

PACKAGE = Path(__file__).parent
COMPILE_SECONDS = 60.0

_log = logging.getLogger(__name__)


def file_name(source_version: str) -> str:
    """The name of a compiled catalogue: of what data, in which of our formats."""
    return f"genai-prices-{source_version}-f{FORMAT}.msgpack"


def ensure_compiled(state_dir: Path, *, package: Path = PACKAGE) -> Path:
    """The catalogue of the installed genai-prices; compiled now (half a second) if no one has done it yet.

    If that fails, the shipped catalogue serves, and a warning is logged: its version stands in every record.
    Raises FileNotFoundError when there is none either.
    """
    name = file_name(version("genai-prices"))
    for directory in (package, state_dir / "prices"):
        if _intact(directory / name):
            return directory / name
    target = state_dir / "prices" / name
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "gateway.prices.compile", str(target)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_SECONDS)  # noqa: S603 - our own module
    except (OSError, subprocess.SubprocessError) as fault:
        shipped = next(iter(sorted(package.glob(file_name("*")), reverse=True)), None)
        if shipped is None:
            raise FileNotFoundError(f"no price catalogue: {fault}") from fault
        _log.warning("prices of the installed genai-prices could not be compiled (%s); using %s", fault, shipped.name)
        return shipped
    return target


def _intact(path: Path) -> bool:
    """Is there a catalogue here that can be read? A file cut short by a full disk is none."""
    try:
        PriceTable(path.read_bytes())
    except (OSError, ValueError):
        return False
    return True
