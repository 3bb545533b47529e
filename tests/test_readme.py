"""README can be followed: its commands exist, its configuration loads, what it links to is there.

Conventions: commands stand in ```sh blocks, configuration in ```yaml blocks, and a block that shows the help of a
command is a ```text block that begins with `usage: tollgate`.
"""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from gateway import cli
from gateway.config.environment import variables
from gateway.config.load import load
from gateway.config.schema_json import json_schema
from gateway.config.source import parse

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """Every command of the shell blocks in words, without variables set before it; parts of pipes and lists apart."""
    found = []
    for block in blocks("sh"):
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
            lexer.whitespace_split, lexer.commenters = True, "#"
            words: list[str] = []
            for word in [*lexer, ";"]:
                if word and set(word) <= set("|&;"):
                    found.append(words)
                    words = []
                elif words or not re.match(r"[A-Z_]+=", word):
                    words.append(word)
    return [words for words in map(without_redirection, found) if words]


def without_redirection(words: list[str]) -> list[str]:
    end = next((place for place, word in enumerate(words) if word[0] in "<>"), len(words))
    return words[:end]


def of(program: str) -> list[list[str]]:
    return [words[1:] for words in commands() if words[0] == program]


def test_the_first_two_commands():
    assert [" ".join(words) for words in commands()[:2]] == ["make demo", "make test"]


def test_make_has_the_targets():
    named = [word for words in of("make") for word in words if "=" not in word]
    assert named
    assert set(named) <= TARGETS


def test_tollgate_takes_the_commands():
    assert of("tollgate")
    for words in of("tollgate"):
        if "--help" not in words and words != ["--version"]:
            assert cli.parser().parse_args(words)


def test_every_command_is_explained():
    names = [
        "serve",
        "demo",
        "check",
        "config schema",
        "config show",
        "journal cat",
        "journal verify",
        "ledger rebuild",
    ]
    assert [name for name in names if f"tollgate {name}" not in TEXT] == []


def test_the_help_shown_is_the_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    for block in blocks("text"):
        if block.startswith("usage: tollgate"):
            words = re.match(r"usage: tollgate ?((?:[a-z]+ ?)*)", block)
            assert words is not None
            with pytest.raises(SystemExit):
                cli.main([*words[1].split(), "--help"])
            assert capsys.readouterr().out.strip() == block.strip()


def test_scripts_named_are_there():
    for words in commands():
        if words[0].startswith(("./", ".ci/")):
            assert os.access(ROOT / words[0], os.X_OK), words[0]


def test_configuration_is_shown():
    assert blocks("yaml")


@pytest.mark.parametrize("text", blocks("yaml"))
def test_the_configuration_loads_and_passes_the_schema(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = parse(text, "README.md")
    assert document.problems == []
    Draft202012Validator(json_schema()).validate(document.data)
    (tmp_path / "tollgate.yaml").write_text(text)
    load(None, {"HOME": str(tmp_path), **{name: "0123456789abcdef" for name in variables(text)}})


def test_what_is_linked_to_is_there():
    links = re.findall(r"\]\(([^)#\s]+)", TEXT) + re.findall(r"<img[^>]* src=\"([^\"]+)", TEXT)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
