"""SQL is never put together from data: no statement in the code is an f-string, `%` or `format`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import gateway
from gateway.recorder import ledger_sql

PACKAGE = Path(gateway.__file__).parent
SQL = re.compile(
    r"\bSELECT\b.+\bFROM\b|\bINSERT\s+(OR\s+\w+\s+)?INTO\b|\bUPDATE\s+\w+\s+SET\b|\bDELETE\s+FROM\b|\bCREATE\s+TABLE\b",
    re.DOTALL,
)
EXECUTES = frozenset({"execute", "executemany", "executescript"})


def composed(node: ast.AST) -> Iterator[str]:
    """The text of a string that is filled in with something, if this node makes one."""
    match node:
        case ast.JoinedStr(values=values):
            if any(isinstance(value, ast.FormattedValue) for value in values):
                yield "".join(str(v.value) for v in values if isinstance(v, ast.Constant))
        case ast.BinOp(left=ast.Constant(value=str(text)), op=ast.Mod()):
            yield text
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str(text)), attr="format")):
            yield text


def faults(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        found += [text for text in composed(node) if SQL.search(text)]
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in EXECUTES
            and node.args
        ):
            found += [text for text in composed(node.args[0])]
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_statement_is_put_together_from_data(path: Path) -> None:
    assert faults(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        'db.execute(f"SELECT * FROM calls WHERE id = {id}")',
        'query = f"DELETE FROM {table}"',
        'db.execute("PRAGMA x = %s" % value)',
        'text = "INSERT INTO t VALUES ({})".format(value)',
        'db.execute(f"PRAGMA user_version = {n}")',
    ],
)
def test_the_check_finds_what_it_looks_for(source: str) -> None:
    assert faults(source)


def test_statements_have_as_many_parameters_as_columns() -> None:
    schema = (PACKAGE / "recorder" / "schema.sql").read_text("utf-8")
    for statement, table in (
        (ledger_sql.INSERT_CALL, "calls"),
        (ledger_sql.INSERT_TOOL, "tools"),
        (ledger_sql.INSERT_RUN, "runs"),
    ):
        body = re.search(rf"CREATE TABLE {table} \((.*?)\n\)", schema, re.S)
        assert body is not None
        columns = re.findall(r"^    [a-z]\w* +[A-Z]", body[1], re.M)
        assert statement.count("?") == len(columns)
