"""The options of `tollgate route`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

Command = Callable[[argparse.Namespace], int]
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # is not generic when it runs
Add: TypeAlias = "Callable[[Parsers, str, Command, str], argparse.ArgumentParser]"


def add(group: Parsers, evaluate: Command, status: Command, add_: Add) -> argparse.ArgumentParser:
    """Add eval and status; status is returned, to be given the options that it shares with others."""
    command = add_(group, "eval", evaluate, "print what learned selection would bring on labelled prompts")
    text = "JSON lines: prompt, scores {model: 0..1}, perhaps domain and costs {model: any unit}"
    command.add_argument("file", type=Path, metavar="FILE", help=text)
    command.add_argument("--train", type=Path, metavar="FILE", help="learn from this file, and judge all of FILE")
    command.add_argument("--price", type=_price, action="append", default=[], metavar="MODEL=N",
                         help="what a call costs, in any unit; default: `costs` of the rows, else equal")  # fmt: skip
    command.add_argument("--folds", type=_folds, default=5, metavar="N", help="of the cross-validation (%(default)s)")
    command.add_argument("--by-domain", action="store_true", help="folds of whole domains: of subjects never seen")
    command.add_argument("--quality", type=_share, metavar="SHARE",
                         help="goal: at least this share of the best model's quality (default 0.97)")  # fmt: skip
    command.add_argument("--cost", type=_share, metavar="SHARE", help="goal: at most this share of its cost")
    command.add_argument("--plot", type=Path, metavar="FILE", help="draw cost against quality as SVG")
    return add_(group, "status", status, "print what was learned of targets, from how many labels")


def _price(text: str) -> tuple[str, float]:
    model, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not model or not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is not MODEL=NUMBER")
    return model, value


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value <= 2:
        raise argparse.ArgumentTypeError(f"{text} is no share, as 0.97")
    return value


def _folds(text: str) -> int:
    value = int(text)
    if not 2 <= value <= 50:
        raise argparse.ArgumentTypeError(f"{text} is not 2 to 50")
    return value
