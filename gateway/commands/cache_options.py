"""The options of `tollgate cache`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

Command = Callable[[argparse.Namespace], int]
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # is not generic when it runs
Add: TypeAlias = "Callable[[Parsers, str, Command, str], argparse.ArgumentParser]"


class Commands(Struct, frozen=True):
    """What each subcommand does."""

    show: Command
    embedder: Command
    eval: Command
    clear: Command
    feedback: Command


def add(commands: Parsers, run: Commands, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add show, embedder, eval, clear and feedback."""
    state_options(add_(commands, "show", run.show, "print what is stored"))
    state_options(add_(commands, "embedder", run.embedder, "say what similar questions are found with, and try it"))
    evaluate = add_(commands, "eval", run.eval, "say how often similar questions would be answered, and how wrongly")
    evaluate.add_argument(
        "file", type=Path, metavar="FILE", help="JSON lines of {text, class}, or a journal's directory"
    )
    text = "tolerated share of wrong hits, more than 0 and less than 1 (%(default)s)"
    evaluate.add_argument("--target", type=_share, default=0.01, metavar="SHARE", help=text)
    evaluate.add_argument("--seed", type=int, default=1, metavar="N", help="of which hits are verified (%(default)s)")
    evaluate.add_argument("--plot", type=Path, metavar="FILE", help="draw it as SVG, at half and twice the target, too")
    state_options(evaluate)
    clear = add_(commands, "clear", run.clear, "forget stored answers: those that match all options, or all")
    for name in ("tenant", "route", "upstream", "model", "agent", "tag"):
        clear.add_argument(f"--{name}", default="", metavar="NAME", help=f"only of this {name}")
    clear.add_argument("--tool", default="", metavar="NAME", help="only outputs of this tool (name or server/name)")
    clear.add_argument("--entry", default="", metavar="ID", help="only this one, as x-tollgate-cache-entry names it")
    state_options(clear)
    feedback = add_(commands, "feedback", run.feedback, "say that an answer to a similar question was right or wrong")
    feedback.add_argument("verdict", choices=("right", "wrong"))
    which = feedback.add_mutually_exclusive_group(required=True)
    which.add_argument("--request", default="", metavar="ID", help="of the call that was given it")
    which.add_argument(
        "--entry", default="", metavar="ID", help="the answer itself, as x-tollgate-cache-entry names it"
    )
    state_options(feedback)


def _share(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is no share, as 0.01")
    return value
