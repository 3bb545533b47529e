"""The options of `tollgate top`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from gateway.commands.keys_options import Add, Command, Parsers


def add(
    commands: Parsers, command: Command, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]
) -> None:
    top = add_(commands, "top", command, "watch spending, runs, budgets and breakers at the terminal")
    top.add_argument("--every", type=_seconds, default=1.0, metavar="S", help="seconds between two looks (%(default)s)")
    top.add_argument("--once", action="store_true", help="print one look and end")
    state_options(top)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.1 and 3600")
    return value
