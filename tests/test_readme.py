"""README and docs can be followed: their commands and names exist, their configuration loads and passes `tollgate
check`, what they link to is there.

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
from gateway.admin.openapi import ROUTES
from gateway.commands import check
from gateway.config.environment import variables
from gateway.config.load import load
from gateway.config.schema_json import json_schema
from gateway.config.source import parse
from gateway.errors import (
    BudgetExceeded,
    BudgetsUnavailable,
    ClientGone,
    EmbedderUnavailable,
    GatewayError,
    LimitReached,
    Overtaken,
    RunStopped,
    Unauthorized,
    Unverified,
)
from gateway.recorder.names import METRICS
from gateway.recorder.names_doc import exposed_name

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = (README, *sorted((ROOT / "docs").glob("*.md")))
TEXT = README.read_text()
CODE = "\n".join(path.read_text() for path in sorted((ROOT / "gateway").rglob("*.py")))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def blocks(language: str, text: str = TEXT) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str = TEXT) -> list[list[str]]:
    """Every command of the shell blocks in words, without variables set before it; parts of pipes and lists apart."""
    found = []
    for block in blocks("sh", text):
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


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_tollgate_takes_the_commands(path):
    named = [words[1:] for words in commands(path.read_text()) if words[0] == "tollgate"]
    assert named or path != README
    for words in named:
        if "--help" not in words and words != ["--version"]:
            assert cli.parser().parse_args(words)


def test_every_command_is_explained():
    names = [
        "serve",
        "demo",
        "run",
        "runs list",
        "runs kill",
        "runs resume",
        "runs raise",
        "keys create",
        "keys list",
        "keys rotate",
        "keys disable",
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


def every(language: str) -> list[object]:
    return [
        pytest.param(text, id=f"{path.stem}-{number}")
        for path in DOCS
        for number, text in enumerate(blocks(language, path.read_text()))
    ]


@pytest.mark.parametrize("text", every("yaml"))
def test_the_configuration_loads_and_passes_the_schema(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = parse(text, "README.md")
    assert document.problems == []
    Draft202012Validator(json_schema()).validate(document.data)
    (tmp_path / "tollgate.yaml").write_text(text)
    load(None, {"HOME": str(tmp_path), **{name: "0123456789abcdef" for name in variables(text)}})


@pytest.mark.parametrize("text", every("yaml"))
def test_the_configuration_passes_the_check(text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tollgate.yaml").write_text(text)
    env = {"HOME": str(tmp_path), **{name: "0123456789abcdef" for name in variables(text)}}
    assert check.run(None, env, strict=False) == 0, capsys.readouterr()


def test_what_the_check_says_of_the_limits_is_what_it_says(tmp_path, monkeypatch, capsys):
    """The block behind `tollgate check` in the third minute, for the configuration above it."""
    monkeypatch.chdir(tmp_path)
    third = TEXT.partition("## Third minute")[2]
    (tmp_path / "tollgate.yaml").write_text(blocks("yaml", third)[0])
    assert check.run(None, {"HOME": str(tmp_path)}, strict=True) == 0
    shown = third.partition("match nothing:\n\n```\n")[2].partition("```")[0]
    assert shown
    assert shown in capsys.readouterr().out


# -- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [path for path in DOCS if path.name != "telemetry.md"], ids=lambda path: path.name)
def test_names_of_fields_codes_and_headers_are_in_the_code(path):
    """Whatever stands in backticks and looks like a name: with an underscore, or a header of ours."""
    quoted = re.findall(r"`([^`\n]+)`", re.sub(r"(?ms)^```.*?^```", "", path.read_text()))
    names = {name for text in quoted for name in re.findall(r"\b[a-z]+(?:_[a-z]+)+\b|\bx-tollgate-[a-z-]+\b", text)}
    known = CODE + "\n".join(str(found.relative_to(ROOT)) for found in ROOT.glob("tests/**/*.py"))
    known += "\n".join(exposed_name(metric) for metric in METRICS.values())
    foreign = {"proxy_pass", "env_key", "wire_api", "calc_price"}  # of nginx, Codex and the price data
    assert sorted(name for name in names - foreign if name not in known) == []


def test_every_header_of_an_answer_is_documented():
    sent = set(re.findall(r"x-tollgate-([a-z-]+): ", CODE)) | {"code"}
    text = "".join(path.read_text() for path in DOCS)
    assert "budget-remaining-usd" in sent
    assert sorted(name for name in sent if f"-{name}`" not in text and f"-{name}:" not in text) == []


def test_every_code_that_money_or_a_key_can_lead_to_is_documented():
    text = "".join((ROOT / "docs" / name).read_text() for name in ("budgets.md", "keys.md"))
    stated = [BudgetExceeded.code, RunStopped.code, LimitReached.code, BudgetsUnavailable.code, Unauthorized.code]
    modules = ("stages/authorize", "stages/admit", "policy/limits", "policy/keys")
    given = {
        code for name in modules for code in re.findall(r'code="(\w+)"', (ROOT / f"gateway/{name}.py").read_text())
    }
    assert {"price_unknown", "model_not_allowed", "key_expired"} <= given
    assert sorted(code for code in {*stated, *given} if f"`{code}`" not in text) == []


def test_every_code_of_an_error_is_explained_where_its_status_is():
    """A row of the page: | status | codes | meaning |; those that nobody is answered with stand in the text."""
    page = (ROOT / "docs" / "errors.md").read_text()
    explained = {
        code: statuses
        for statuses, codes in re.findall(r"^\| ([\d, ]+) \| (.+?) \|", page, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }
    kinds = [GatewayError]
    for kind in kinds:  # grows on the way
        kinds += [one for one in kind.__subclasses__() if one.__module__ == GatewayError.__module__]
    unanswered = {ClientGone, Overtaken, Unverified, EmbedderUnavailable}
    assert [kind.code for kind in kinds if kind in unanswered and f"`{kind.code}`" not in page] == []
    answered = [kind for kind in kinds if kind not in unanswered]
    assert [kind.code for kind in answered if str(kind.status) not in explained.get(kind.code, "")] == []
    words_of_providers = {"insufficient_quota", "rate_limit_exceeded"}
    for folder in ("net", "stages", "policy", "dialects"):
        for path in (ROOT / "gateway" / folder).rglob("*.py"):
            given = set(re.findall(r'\bcode="(\w+)"', path.read_text()))
            assert sorted(given - set(explained) - words_of_providers) == [], path


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_paths_of_the_api_are_there(path):
    known = [re.sub(r"\{\w+\}", "[^/]+", route.path) for route in ROUTES]
    for named in set(re.findall(r"/api/[\w/{}$.-]*[\w}]", path.read_text())):
        assert any(re.fullmatch(pattern, re.sub(r"[{}]", "", named)) for pattern in known), named


# -- links --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_what_is_linked_to_is_there(path):
    text = path.read_text()
    links = re.findall(r"\]\(([^)#\s]+)", text) + re.findall(r"<img[^>]* src=\"([^\"]+)", text)
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def rows(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")
    ]


def test_litellm_14681_every_figure_is_one_of_the_committed_run_also_where_it_missed_its_target():
    """There nobody could find the published figures again. Here a run writes a file, and README repeats it."""
    assert re.search(r"^bench:.*\n\t\$\(BIN\)/python -m tests\.bench ", (ROOT / "Makefile").read_text(), re.M)
    speed = TEXT.partition("\n## Speed\n")[2].partition("\n## ")[0]
    written = [
        (float(number[0].replace(",", "")), row[4])
        for row in rows((ROOT / "tests/bench/results.md").read_text())
        if len(row) == 5 and row[2] and (number := re.search(r"-?[\d.,]+", row[1]))
    ]
    shown = [row for row in rows(speed)[1:] if "quick run)" not in row[1] and "quick runs" not in row[1]]
    shown = [row for row in shown if ", quick run" not in row[1]]
    assert len(shown) > 10
    for what, measured, _, verdict in shown:
        figure = re.search(r"\d+(?:\.(\d+))?", measured)
        places = len(figure[1] or "")
        verdicts = {said for number, said in written if f"{number:.{places}f}" == figure[0]}
        assert verdicts, f"{what}: {figure[0]} stands in no row of the results"
        assert ("**misses**" in verdicts) == (verdict == "missed"), what
