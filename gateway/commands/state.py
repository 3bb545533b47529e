"""Subcommands that read what the gateway keeps on disk: where it is, and what is made of it anew."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.config.load import load
from gateway.config.places import journal, ledger
from gateway.recorder.ledger_rebuild import rebuild


def journal_directory(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> Path:
    """Where the configured gateway keeps its journal. Raises ConfigError, and FileNotFoundError where it has none."""
    directory = journal(load(path, env, overrides))
    if not directory.is_dir():
        raise FileNotFoundError(2, os.strerror(2), str(directory))
    return directory


def ledger_rebuild(path: Path | None, env: Mapping[str, str], overrides: Mapping[str, object]) -> int:
    """Make the ledger again from the journal, and say what went in. Returns 1 where the journal is damaged."""
    directory = journal_directory(path, env, overrides)
    target = ledger(load(path, env, overrides))
    result = rebuild(directory, target)
    left_out = f", {result.damaged} damaged and left out" if result.damaged else ""
    print(f"{target}: {result.records} records{left_out}")
    if result.fewer:
        print(f"{result.fewer} calls of the old ledger are no longer in the journal; it is kept as {result.kept}")
    return 1 if result.damaged else 0
