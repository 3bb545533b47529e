"""The options of `tollgate slo`. Nothing is imported that `--help` would have to wait for."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeAlias

Command = Callable[[argparse.Namespace], int]
Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # is not generic when it runs
Add: TypeAlias = "Callable[[Parsers, str, Command, str], argparse.ArgumentParser]"


def add(group: Parsers, command: Command, add_: Add, config_option: Callable[[argparse.ArgumentParser], None]) -> None:
    """Add generate."""
    generate = add_(group, "generate", command, "print rules for Prometheus from `slos:` of the configuration")
    generate.add_argument("--runbook", metavar="URL", help="of the runbook that alerts lead to")
    generate.add_argument("--dashboard", metavar="URL", help="of the dashboard that alerts lead to")
    generate.add_argument("--kubernetes", action="store_true", help="as a PrometheusRule of the Prometheus operator")
    config_option(generate)
