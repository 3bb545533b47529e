"""What the translation makes of chosen recordings, held against files that were read by a person."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

GOLDEN = Path(__file__).parents[3] / "golden" / "translations"


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_translations", GOLDEN / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MADE = maker().made()


def test_the_files_are_those_that_are_made():
    assert {path.name for path in GOLDEN.glob("*.json")} == set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_it_says_what_the_file_says(name):
    assert json.loads((GOLDEN / name).read_text()) == json.loads(json.dumps(MADE[name]))
