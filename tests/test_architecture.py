"""The rules of the architecture, run: who may import whom, what is pure, how big things may grow, what is not written.

Every rule returns its violations as `file:line: what`, so that a failure reads like a compiler's output. Exceptions are
named here, each with its reason, and the lists may only shrink.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.defaults import BUILT_IN
from gateway.dialects.registry import DIALECTS

ROOT = Path(__file__).parents[1]
GATEWAY = ROOT / "gateway"

# A package or module may import only those named here, and itself. Read from the inside to the outside.
MAY: dict[str, set[str]] = {
    "__init__": set(),
    "errors": set(),
    "frames": set(),
    "members": set(),
    "key": set(),
    "call": {"errors", "key", "spend"},
    "spend": set(),
    "tool": set(),
    "ports_dialect": {"call", "errors"},
    "ports_cache": {"call"},
    "ports_translation": {"call", "errors", "ports_dialect"},
    "ports_matcher": set(),
    "ports_semantic": set(),
    "ports_outputs": {"call"},
    "ports_routing": {"call"},
    "ports_trial": {"call"},
    "ports_wire": {"errors", "ports_dialect"},
    "ports": {"call", "key", "spend", "tool"}
    | {
        f"ports_{part}"
        for part in ("cache", "dialect", "matcher", "outputs", "routing", "translation", "trial", "wire")
    },
    "config": {"errors"},
    "policy": {"call", "errors", "key", "members", "ports", "config", "spend", "tool"},
    "dialects": {"call", "errors", "members", "ports", "config", "spend", "tool"},
    "stores": {"call", "errors", "frames", "key", "ports", "config", "policy", "spend"},
    "semantic": {"errors", "ports_semantic", "policy"},
    "journal": {"call", "errors", "ports", "config", "spend"},
    "prices": {"call", "config", "policy"},
    "stages": {"call", "errors", "key", "ports", "policy", "spend", "tool"},
    "pipeline": {"call", "errors", "ports", "stages"},
    "net": {"call", "errors", "ports", "config", "pipeline"},
    "process": {"config", "frames", "journal"},
    "recorder": {"call", "errors", "config", "policy", "journal", "spend", "tool"},
    "admin": {"call", "errors", "key", "config", "journal", "policy", "ports", "recorder", "spend"},
    "commands": {
        *("config", "errors", "journal", "key", "policy", "ports_semantic", "prices", "process", "recorder"),
        *("semantic", "spend", "stores"),
    },
    "matcher": {
        "call",
        "config",
        "errors",
        "frames",
        "policy",
        "ports",
        "ports_semantic",
        "prices",
        "semantic",
        "stores",
    },
    "supervisor": {"config", "process"},
}
# Where things are put together: the only modules that may name any class. One per process, and the command line.
ROOTS = {
    *(
        "__main__.py",
        "app.py",
        "app_cache.py",
        "app_resilience.py",
        "app_routing.py",
        "app_spending.py",
        "app_tools.py",
        "worker.py",
        "recorder/recorder.py",
        "recorder/service.py",
        "matcher/service.py",
        "cli.py",
    ),
    "testing",
}

PURE = {"policy", "dialects", "call.py", "errors.py", "key.py", "spend.py", "tool.py"}
# The only modules outside of the gateway that a pure module may import; nothing here does I/O or tells the time.
# `datetime` is for arithmetic on times given; its clocks are banned below.
PURE_IMPORTS = {
    *(
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "dataclasses",
        "datetime",
        "enum",
        "fractions",
    ),
    *(
        "functools",
        "hashlib",
        "hmac",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "string",
        "struct",
        "types",
        "typing",
        "urllib.parse",
    ),
    *("array", "zlib", "msgspec", "brotli", "zstandard"),
}
IMPURE_CALLS = {"open", "print", "input", "now", "utcnow", "today", "getenv", "urandom", "random", "perf_counter"}

# Handlers that swallow whatever comes. The rest of the tree catches what it knows.
MAY_SWALLOW = {
    ("pipeline.py", "serve"): "a bug is recorded and answered like every other fault",
    ("stages/close.py", "close"): "one failing step of close must not take the others with it",
}

# The one place that ends a stream in the provider's stead: an answer whose allowance is used up is over, not broken.
MAY_END = {("dialects/finish.py", "chat")}

# Literals of these names decide nothing outside of the packages that know providers: ask the dialect object.
KNOWS_NAMES = {"dialects", "config", "prices", "testing"}
NAMES = {*DIALECTS, *BUILT_IN, *(known.provider for known in BUILT_IN.values())} | {
    *(
        "azure",
        "aws",
        "bedrock",
        "vertex",
        "mistral",
        "groq",
        "cohere",
        "deepseek",
        "openrouter",
        "x-ai",
        "xai",
        "ollama",
    )
}

WORKER_NEVER_LOADS = {
    *("aiohttp", "genai_prices", "grpc", "numpy", "opentelemetry", "prometheus_client", "pydantic", "requests", "rich"),
    *("redis", "yaml"),
}
CLI_NEVER_LOADS = WORKER_NEVER_LOADS | {"asyncio", "sqlite3", "ssl", "uvloop"}

LINES, FUNCTION_LINES, COMPLEXITY = 400, 50, 10

SQL = re.compile(
    r"\s*(SELECT|INSERT|UPDATE|DELETE|REPLACE|CREATE|ALTER|DROP|ATTACH|PRAGMA|WITH|VACUUM)\b", re.IGNORECASE
)
EXECUTES = {"execute", "executemany", "executescript"}

# Put together here so that this file does not name them either.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        *(
            ("pypi", "org"),
            ("pythonhosted", "org"),
            ("npmjs", "org"),
            ("npmjs", "com"),
            ("yarnpkg", "com"),
            ("crates", "io"),
        ),
        *(("rubygems", "org"), ("proxy", "golang", "org"), ("anaconda", "org"), ("maven", "org"), ("debian", "org")),
    )
]


class Module:
    """One file of the gateway."""

    def __init__(self, path: Path, text: str | None = None) -> None:
        self.name = path.relative_to(GATEWAY).as_posix()
        self.unit = self.name.split("/")[0].removesuffix(".py")
        self.dotted = "gateway." + self.name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        self.text = path.read_text() if text is None else text
        self.tree = ast.parse(self.text)
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def within(self, names: set[str]) -> bool:
        return self.name in names or self.unit in names

    def at(self, node: ast.AST, what: str) -> str:
        return f"gateway/{self.name}:{getattr(node, 'lineno', 1)}: {what}"

    def imports(self) -> Iterator[tuple[ast.stmt, str]]:
        """Every imported module; `from a import b` gives `a.b` where that is a module."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                modules = {f"{module}.{alias.name}" for alias in node.names} & dotted_names()
                yield from ((node, name) for name in sorted(modules) or [module])

    def function(self, node: ast.AST) -> str:
        """The name of the function around a node, "" at module level."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                return node.name
        return ""


@functools.cache
def dotted_names() -> frozenset[str]:
    names = (path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for path in GATEWAY.rglob("*.py"))
    return frozenset(name.removesuffix(".__init__") for name in names)


@functools.cache
def modules() -> list[Module]:
    return [Module(path) for path in sorted(GATEWAY.rglob("*.py"))]


@functools.cache
def tracked() -> list[Path]:
    """Every text file of the project; what git ignores is none of it."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=False,
        timeout=30,
    )
    if listing.returncode:  # not a checkout
        files = [path for path in ROOT.rglob("*") if not {".venv", "build", "__pycache__"} & set(path.parts)]
    else:
        files = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in files if path.is_file() and b"\0" not in path.read_bytes()[:8192]]


# -- who may import whom ------------------------------------------------------------------------------------------


def test_the_layers_are_kept():
    found = []
    for module in modules():
        if module.within(ROOTS):
            continue
        assert module.unit in MAY, f"gateway/{module.name}: this test has no rule for {module.unit}"
        for node, name in module.imports():
            if name.startswith("gateway."):
                other = name.split(".")[1]
                if other != module.unit and other not in MAY[module.unit]:
                    found.append(module.at(node, f"{module.unit} may not import {other}"))
    assert not found, "\n".join(found)


def test_the_rule_of_layers_has_no_circle_and_no_dead_entry():
    list(graphlib.TopologicalSorter(MAY).static_order())
    units = {module.unit for module in modules()}
    assert set(MAY) <= units, f"rules for what is gone: {set(MAY) - units}"
    for root in ROOTS:
        assert (GATEWAY / root).exists(), f"{root} is gone"


def test_nothing_imports_where_things_are_put_together():
    found = []
    for module in modules():
        for node, name in module.imports():
            target = name.removeprefix("gateway.").replace(".", "/")
            is_root = target.split("/")[0] == "testing" or f"{target}.py" in ROOTS
            if name.startswith("gateway.") and is_root and not module.within(ROOTS):
                found.append(module.at(node, f"imports the root {name}"))
    assert not found, "\n".join(found)


def test_no_module_is_part_of_a_circle():
    graph = {module.dotted: {name for _, name in module.imports() if name in dotted_names()} for module in modules()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_imports_are_absolute_and_at_the_top():
    found = []
    for module in modules():
        for node, name in module.imports():
            if name.startswith("."):
                found.append(module.at(node, "relative import"))
            if module.function(node) and module.name != "cli.py":  # `--help` must not wait for what a command needs
                found.append(module.at(node, f"imports {name} inside a function"))
    assert not found, "\n".join(found)


# -- what is pure -------------------------------------------------------------------------------------------------


def pure_modules() -> list[Module]:
    return [module for module in modules() if module.within(PURE)]


def test_pure_modules_import_nothing_that_does_io():
    found = []
    for module in pure_modules():
        for node, name in module.imports():
            if name.split(".")[0] not in {"gateway", *PURE_IMPORTS} and name not in PURE_IMPORTS:
                found.append(module.at(node, f"a pure module imports {name}"))
    assert not found, "\n".join(found)


def test_pure_modules_neither_wait_nor_look_around():
    found = []
    for module in pure_modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
                found.append(module.at(node, "async in a pure module"))
            if isinstance(node, ast.Call) and called(node) in IMPURE_CALLS:
                found.append(module.at(node, f"calls {called(node)}()"))
            if isinstance(node, ast.Global):
                found.append(module.at(node, "changes a global"))
    assert not found, "\n".join(found)


def called(node: ast.Call) -> str:
    """The last name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


# -- how big things may grow --------------------------------------------------------------------------------------


def test_files_and_functions_stay_readable():
    found = []
    for module in modules():
        lines = module.text.count("\n")
        if lines > LINES:
            found.append(module.at(module.tree, f"{lines} lines, at most {LINES}"))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES:
                    found.append(module.at(node, f"{node.name} has {size} lines, at most {FUNCTION_LINES}"))
    assert not found, "\n".join(found)


def test_functions_stay_simple():
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--ignore-noqa", "--select", "C901"]
    command += ["--config", f"lint.mccabe.max-complexity={COMPLEXITY}", "--output-format", "concise", "gateway"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


# -- what is never written ----------------------------------------------------------------------------------------

BROAD = {"Exception", "BaseException"}


def test_only_named_places_swallow_every_exception():
    found, used = [], set()
    for module in modules():
        for node in ast.walk(module.tree):
            if not (is_broad_handler(node) or is_broad_suppress(node)):
                continue
            place = (module.name, module.function(node))
            if place in MAY_SWALLOW:
                used.add(place)
            else:
                found.append(module.at(node, f"{place[1]} catches everything"))
    assert not found, "\n".join(found)
    assert used == set(MAY_SWALLOW), f"no longer needed: {set(MAY_SWALLOW) - used}"
    assert len(MAY_SWALLOW) <= 2


def is_broad_handler(node: ast.AST) -> bool:
    """Catches everything and goes on; one that ends by raising again only tidies up."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    last = node.body[-1]
    return names_broad(node.type) and not (isinstance(last, ast.Raise) and last.exc is None)


def is_broad_suppress(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and called(node) == "suppress" and any(map(names_broad, node.args))


def names_broad(node: ast.expr | None) -> bool:
    if node is None:
        return True
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(getattr(part, "id", getattr(part, "attr", "")) in BROAD for part in parts)


def test_no_decision_hangs_on_the_name_of_a_provider():
    found = []
    for module in modules():
        if module.within(KNOWS_NAMES):
            continue
        for node in ast.walk(module.tree):
            found += [
                module.at(node, f'decides by the name "{name}"; ask the dialect or the configuration')
                for name in deciding_names(node)
            ]
    assert not found, "\n".join(found)


def deciding_names(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Compare):
        parts: list[ast.expr] = [node.left, *node.comparators]
    elif isinstance(node, ast.MatchValue):
        parts = [node.value]
    elif isinstance(node, ast.Call) and called(node) in ("startswith", "endswith"):
        parts = list(node.args)
    else:
        return []
    constants = [part for root in parts for part in ast.walk(root) if isinstance(part, ast.Constant)]
    texts = [c.value.decode("latin-1") if isinstance(c.value, bytes) else c.value for c in constants]
    return [text for text in texts if isinstance(text, str) and text.lower().strip("/.-_") in NAMES]


def test_sql_is_never_put_together_from_values():
    found = []
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and called(node) in EXECUTES and node.args and is_made(node.args[0]):
                found.append(module.at(node, "executes a statement that is put together"))
            if isinstance(node, ast.JoinedStr) and isinstance(node.values[0] if node.values else None, ast.Constant):
                head = node.values[0]
                if isinstance(head, ast.Constant) and SQL.match(str(head.value)):
                    found.append(module.at(node, "SQL in an f-string"))
    assert not found, "\n".join(found)


def is_made(node: ast.expr) -> bool:
    """An f-string, a sum, `%` or `.format` where a statement should stand; joined constants are one constant."""
    if isinstance(node, ast.Call):
        return called(node) in ("format", "join", "replace")
    return isinstance(node, ast.JoinedStr | ast.BinOp)


def test_nothing_forges_the_end_of_a_stream():
    """`[DONE]` is looked for, never written: a stream that failed must not end like one that did not."""
    found, used = [], set()
    for module in modules():
        if module.unit == "testing":  # the fake providers do end their streams
            continue
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Constant) and holds_done(node)) or is_only_sought(module, node):
                continue
            place = (module.name, module.function(node))
            used.add(place)
            if place not in MAY_END:
                found.append(module.at(node, "[DONE] may only be looked for"))
    assert not found, "\n".join(found)
    assert used == MAY_END, f"no longer needed: {MAY_END - used}"
    assert len(MAY_END) <= 1


def holds_done(node: ast.Constant) -> bool:
    return "[DONE]" in (node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value))


def is_only_sought(module: Module, node: ast.AST) -> bool:
    """A docstring; something compared with or searched for; or a name, all of whose uses are that."""
    parent = module.parents[node]
    if isinstance(parent, ast.Tuple):
        parent = module.parents[parent]
    if isinstance(parent, ast.Assign) and isinstance(parent.targets[0], ast.Name):
        names = [use for use in ast.walk(module.tree) if isinstance(use, ast.Name) and use.id == parent.targets[0].id]
        return all(seeks(module.parents[use]) for use in names if isinstance(use.ctx, ast.Load))
    return isinstance(parent, ast.Expr) or seeks(parent)


def seeks(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return called(node) in ("endswith", "startswith", "find", "rfind", "index", "count", "len")
    return isinstance(node, ast.Compare | ast.comprehension)


def test_no_wait_is_wrapped_in_a_task_on_the_path_of_a_call():
    """`asyncio.wait_for` costs 19 microseconds and a task; the transport's own callbacks wake whoever waits."""
    found = []
    for module in modules():
        if not module.within({"pipeline", "stages", "net", "policy", "dialects"}):
            continue
        found += [
            module.at(node, called(node))
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Call) and called(node) in ("wait_for", "shield", "to_thread")
        ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("eval", "runs text"),
        ("exec", "runs text"),
        ("system", "runs a shell"),
        ("popen", "runs a shell"),
        ("mktemp", "races for a name"),
        ("utcnow", "gives a time without a zone"),
        ("get_event_loop", "may make a loop nobody runs"),
    ],
)
def test_calls_that_are_never_right(name, reason):
    found = [
        module.at(node, f"{name}() {reason}")
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and called(node) == name
    ]
    assert not found, "\n".join(found)


# -- what a process loads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("module", "never"), [("gateway.worker", WORKER_NEVER_LOADS), ("gateway.cli", CLI_NEVER_LOADS)]
)
def test_processes_load_only_what_they_need(module, never):
    code = f"import sys, {module}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert not never & set(result.stdout.split())


# -- the tree -----------------------------------------------------------------------------------------------------


def test_no_registry_is_named():
    found = [
        f"{path.relative_to(ROOT)}: {host}"
        for path in tracked()
        for host in REGISTRIES
        if re.search(rf"(?<![\w-]){re.escape(host)}(?![\w-])", path.read_text(errors="replace"))
    ]
    assert not found, "\n".join(found)


def test_no_path_of_this_machine_is_named():
    here = [str(ROOT.resolve()), str(Path.home()), tempfile.gettempdir()]
    places = [place for place in here if place.count("/") >= 2 or place == "/root"]
    found = [
        f"{path.relative_to(ROOT)}: {place}"
        for path in tracked()
        if "golden" not in path.parts  # recordings of others
        for place in places
        if re.search(rf"(?<![\w.-]){re.escape(place)}/", path.read_text(errors="replace"))
    ]
    assert not found, "\n".join(found)


# -- the rules themselves -----------------------------------------------------------------------------------------


def hits(rule, source):
    module = Module(GATEWAY / "stages" / "example.py", source)
    return sum(bool(rule(module, node)) for node in ast.walk(module.tree))


def swallows(_, node):
    return is_broad_handler(node) or is_broad_suppress(node)


def decides(_, node):
    return deciding_names(node)


def executes(_, node):
    return isinstance(node, ast.Call) and called(node) in EXECUTES and is_made(node.args[0])


def forges(module, node):
    return isinstance(node, ast.Constant) and holds_done(node) and not is_only_sought(module, node)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (swallows, "try: f()\nexcept Exception: pass", "try: f()\nexcept OSError: pass"),
        (swallows, "try: f()\nexcept: x = 1", "try: f()\nexcept BaseException:\n  g()\n  raise"),
        (swallows, "try: f()\nexcept (OSError, Exception) as e: raise E from e", "with suppress(OSError): f()"),
        (swallows, "with contextlib.suppress(BaseException): f()", "try: f()\nfinally: g()"),
        (decides, "if dialect == 'openai': f()", "if dialect == other: f()"),
        (decides, "x = name in ('a', 'gemini')", "x = {'openai': 1}"),
        (decides, "match d:\n  case 'anthropic': f()", "f('anthropic')"),
        (decides, "path.startswith(b'/openai/')", "path.startswith(b'/v1/')"),
        (executes, "db.execute(f'SELECT {x}')", "db.execute('SELECT ?', (x,))"),
        (executes, "db.executescript('a' + b)", "db.execute(CONSTANT)"),
        (executes, "db.execute('SELECT {}'.format(x))", "other.submit(f'SELECT {x}')"),
        (forges, "write(b'data: [DONE]\\n\\n')", "x = data == b'[DONE]'"),
        (forges, "D = b'[DONE]'\nwrite(D)", "D = b'[DONE]'\nif data.endswith(D): f()"),
    ],
)
def test_the_rules_see_what_they_forbid_and_nothing_else(rule, bad, good):
    assert hits(rule, bad) == 1
    assert hits(rule, good) == 0
