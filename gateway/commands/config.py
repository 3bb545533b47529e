"""`tollgate config`: the schema of the file, and the configuration in force."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from gateway.config.load import load_with_source, redacted
from gateway.config.schema_json import json_schema


def schema() -> int:
    """Print the JSON Schema of `tollgate.yaml`."""
    json.dump(json_schema(), sys.stdout, indent=2)
    print()
    return 0


def show(path: Path | None, env: Mapping[str, str]) -> int:
    """Print the configuration in force, defaults and environment included, as YAML without its secrets."""
    loaded = load_with_source(path, env, {})
    print(f"# {loaded.file or 'built-in defaults'}")
    yaml.safe_dump(redacted(loaded.config), sys.stdout, sort_keys=False, default_flow_style=False)
    return 0
