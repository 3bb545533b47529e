"""The options of `tollgate run` and `tollgate runs`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import NamedTuple

from gateway.commands.keys_options import Add, Command, Parsers

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}\Z")  # what may stand in the path of a call


class Commands(NamedTuple):
    """What each does; `decide` is told by `options.action`."""

    list: Command
    decide: Command
    outcome: Command


def add(group: Parsers, did: Commands, add_: Add, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add list, kill, resume, raise and outcome."""
    listing = add_(group, "list", did.list, "print the latest runs, and what is stopped")
    listing.add_argument("--limit", type=number, default=20, metavar="N", help="how many runs (%(default)s)")
    kill = add_(group, "kill", did.decide, "stop a run (or an agent, a key, a team): its next call and those under way")
    kill.add_argument("--reason", default="", metavar="TEXT", help="told to the agent")
    resume = add_(group, "resume", did.decide, "let a stopped run (or agent, key, team) go on")
    for command in (kill, resume):
        subject = command.add_mutually_exclusive_group(required=True)
        subject.add_argument("run", nargs="?", metavar="ID", help="the run")
        for name in ("agent", "key-id", "team"):
            subject.add_argument(f"--{name}", metavar="NAME", help=f"the {name.removesuffix('-id')}, in place of a run")
    more = add_(group, "raise", did.decide, "give a run another budget, also while it waits")
    more.add_argument("run", metavar="ID", help="the run")
    more.add_argument("budget_usd", type=amount, metavar="USD", help="its whole budget from now on")
    for action, command in (("kill", kill), ("resume", resume), ("raise", more)):
        command.set_defaults(action=action)
    outcome = add_(group, "outcome", did.outcome, "report what a run achieved; the last report counts")
    outcome.add_argument("run", metavar="ID", help="the run")
    outcome.add_argument("achieved", type=achieved, metavar="OUTCOME", help="success, failure, or a score as a number")
    outcome.add_argument("--note", default="", metavar="TEXT", help="why, for people")
    for command in (listing, kill, resume, more, outcome):
        state_options(command)


def add_run(run: argparse.ArgumentParser, state_options: Callable[[argparse.ArgumentParser], None]) -> None:
    run.add_argument("--budget", type=amount, metavar="USD", dest="budget_usd", help="what all its calls may cost")
    for name, what in (("calls", "calls"), ("steps", "steps"), ("tools", "tool calls")):
        run.add_argument(f"--max-{name}", type=number, metavar="N", help=f"how many {what} it may make")
    run.add_argument("--max-minutes", type=amount, metavar="N", help="how long it may go on calling")
    run.add_argument("--max-depth", type=int, metavar="N", help="how deep its sub-agents may be nested")
    run.add_argument("--agent", type=_name, metavar="NAME", help="who it shall be recorded as")
    run.add_argument("--name", type=_name, metavar="RUN", help="id of the run (default: a new one)")
    state_options(run)
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- COMMAND ...", help="the command and its arguments")


def amount(text: str) -> float:
    value = float(text)
    if not 0 < value <= 9_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not more than zero and at most 9,000,000")
    return value


def number(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than one")
    return value


def achieved(text: str) -> tuple[str, float | None]:
    """An outcome and its value, as the API takes them."""
    if text in ("success", "failure"):
        return text, None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is neither success nor failure nor a number")
    return "score", value


def is_name(text: str) -> bool:
    return _NAME.match(text) is not None


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name: letters, digits and . _ : @ - behind the first")
    return text
