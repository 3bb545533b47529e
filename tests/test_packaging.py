"""The wheel holds the source and nothing else, and says what it depends on and why."""

from __future__ import annotations

import ast
import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name as canonical
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EPOCH = "1767225600"  # any fixed time

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


def build(place: Path) -> Path:
    """Build the wheel from a copy of the source, so that nothing lying about gets in and nothing is left behind."""
    source, out = place / "source", place / "out"
    shutil.copytree(ROOT / "gateway", source / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy2(ROOT / name, source / name)
    out.mkdir()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", BUILD, str(out)]
    result = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def names(wheel):
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def read(wheel: Path, ending: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(ending)]
        return archive.read(name).decode()


def test_the_wheel_is_the_source(wheel, names):
    source = {path for path in (ROOT / "gateway").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == {path.relative_to(ROOT).as_posix() for path in source}
    with zipfile.ZipFile(wheel) as archive:
        for path in source:
            assert archive.read(path.relative_to(ROOT).as_posix()) == path.read_bytes()


def test_nothing_in_it_runs_by_itself(names):
    assert {name.split("/")[0] for name in names} == {"gateway", f"tollgate-{PROJECT['project']['version']}.dist-info"}
    assert not [name for name in names if name.endswith((".pth", ".pyc", ".so", ".egg", ".data"))]


def test_it_is_typed_and_brings_its_data(names):
    assert {"gateway/py.typed", "gateway/recorder/schema.sql", "gateway/prices/NOTICE"} <= names
    assert [name for name in names if re.fullmatch(r"gateway/prices/genai-prices-[0-9.]+-f\d+\.msgpack", name)]


def test_the_licence_comes_with_it(wheel, names):
    metadata = email.message_from_string(read(wheel, ".dist-info/METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("License-File")) == {"LICENSE", "NOTICE"}
    assert {name.rsplit("/", 1)[1] for name in names if "/licenses/" in name} == {"LICENSE", "NOTICE"}
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "9. Accepting Warranty or Additional Liability" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_command_is_installed(wheel):
    scripts = configparser.ConfigParser()
    scripts.read_string(read(wheel, ".dist-info/entry_points.txt"))
    assert dict(scripts["console_scripts"]) == {"tollgate": "gateway.cli:main"}


def test_it_runs_from_where_it_is_unpacked(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys, gateway.cli; print(gateway.cli.__file__); sys.exit(gateway.cli.main(['check']))"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path / "site")}
    result = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(str(tmp_path / "site"))
    assert "no problems" in result.stdout


def test_the_same_source_gives_the_same_wheel(wheel, tmp_path):
    again = build(tmp_path)
    assert again.name == wheel.name
    assert again.read_bytes() == wheel.read_bytes()


def declared() -> list[str]:
    extras = PROJECT["project"]["optional-dependencies"].values()
    groups = [PROJECT["build-system"]["requires"], PROJECT["project"]["dependencies"], *extras]
    return [requirement for group in groups for requirement in group]


@pytest.mark.parametrize("requirement", declared())
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement):
    assert re.fullmatch(r"[A-Za-z0-9_.-]+(\[[a-z,]+\])?>=[0-9.]+,<[0-9.]+", requirement)


@pytest.mark.parametrize("requirement", declared()[1:])
def test_every_dependency_says_what_it_is_for(requirement):
    (line,) = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if f'  "{requirement}",' in line]
    assert re.search(r"# .{8,}", line)


def test_what_is_imported_is_declared():
    """Every import of the gateway is of itself, of the standard library, or of a declared dependency."""
    modules = {"prometheus_client": "prometheus-client", "yaml": "PyYAML", "opentelemetry": "opentelemetry-sdk"}
    modules |= {"genai_prices": "genai-prices"}
    extra = PROJECT["project"]["optional-dependencies"]["semantic"]
    requirements = {re.split(r"[\[>]", one)[0] for one in (*PROJECT["project"]["dependencies"], *extra)}
    imported = set()
    for path in (ROOT / "gateway").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    third = {name for name in imported if name not in sys.stdlib_module_names and name != "gateway"}
    # protobuf messages of OTLP, and grpc, come with the exporter
    brought = {"google", "grpc"}
    assert {modules.get(name, name) for name in third - brought} <= requirements


def test_the_versions_installed_are_within_the_ranges_and_complete():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {canonical(name): Version(version) for name, version in (line.split("==") for line in lines)}
    for requirement in map(Requirement, declared()):
        assert pinned[canonical(requirement.name)] in requirement.specifier, requirement
