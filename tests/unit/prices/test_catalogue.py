from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from gateway.call import Usage
from gateway.prices import catalogue
from gateway.prices.catalogue import PACKAGE, ensure_compiled, file_name
from gateway.prices.compile import compile_catalogue
from gateway.prices.load import load

SHIPPED = PACKAGE / file_name(version("genai-prices"))


def test_the_shipped_catalogue_is_a_fresh_compilation():
    assert SHIPPED.read_bytes() == compile_catalogue()


def test_compilation_is_deterministic():
    assert compile_catalogue() == compile_catalogue()


def test_the_shipped_catalogue_serves_where_it_is_of_the_installed_version(tmp_path: Path):
    assert ensure_compiled(tmp_path) == SHIPPED
    assert not list(tmp_path.iterdir())


def test_another_version_is_compiled_once_and_kept_in_the_state_directory(tmp_path: Path):
    package, state = tmp_path / "package", tmp_path / "state"
    package.mkdir()
    path = ensure_compiled(state, package=package)
    assert path == state / "prices" / SHIPPED.name
    assert path.read_bytes() == SHIPPED.read_bytes()
    made = path.stat().st_mtime_ns
    assert ensure_compiled(state, package=package) == path
    assert path.stat().st_mtime_ns == made


def test_a_catalogue_cut_short_is_compiled_again(tmp_path: Path):
    broken = tmp_path / "prices" / SHIPPED.name
    broken.parent.mkdir()
    broken.write_bytes(SHIPPED.read_bytes()[:1000])
    assert ensure_compiled(tmp_path, package=tmp_path / "nothing") == broken
    assert broken.read_bytes() == SHIPPED.read_bytes()


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(1, "compile")

    monkeypatch.setattr(catalogue.subprocess, "run", fail)


@pytest.mark.usefixtures("no_compiler")
def test_the_shipped_catalogue_serves_with_a_warning_where_compiling_fails(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    old = tmp_path / file_name("0.0.1")
    old.write_bytes(SHIPPED.read_bytes())
    with caplog.at_level(logging.WARNING):
        assert ensure_compiled(tmp_path / "state", package=tmp_path) == old
    assert old.name in caplog.text


@pytest.mark.usefixtures("no_compiler")
def test_without_any_catalogue_there_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        ensure_compiled(tmp_path / "state", package=tmp_path)


def test_loading_imports_neither_genai_prices_nor_pydantic():
    program = (
        "import sys; from gateway.prices.load import load; from pathlib import Path;"
        f"load(Path({str(SHIPPED)!r})).knows('openai', 'gpt-4o');"
        "assert not {'genai_prices', 'pydantic', 'subprocess', 'importlib.metadata'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("host", "path", "provider"),
    [
        ("api.openai.com", "/v1", "openai"),
        ("eu.api.openai.com", "", "openai"),
        ("api.anthropic.com", "", "anthropic"),
        ("generativelanguage.googleapis.com", "/v1beta", "google"),
        ("us-central1-aiplatform.googleapis.com", "/v1", "google"),
        ("acme.openai.azure.com", "/openai", "azure"),
        ("acme.services.ai.azure.com", "", "azure"),
        ("bedrock-runtime.us-east-1.amazonaws.com", "/", "aws"),
        ("bedrock-runtime-fips.us-gov-west-1.amazonaws.com", "/", "aws"),
        ("API.X.AI.", "/v1", "x-ai"),
        ("router.huggingface.co", "/groq/openai/v1", "huggingface_groq"),
        ("router.huggingface.co", "", ""),
        ("openrouter.ai", "/api/v1", "openrouter"),
        ("api.together.ai", "/v1", "together"),
        ("localhost", "/v1", ""),
        ("127.0.0.1", "/v1", ""),
        ("::1", "", ""),
        ("", "", ""),
        ("gateway.internal.example", "/openai", ""),
        ("s3.amazonaws.com", "", ""),
    ],
)
def test_the_provider_of_an_upstream(host: str, path: str, provider: str):
    assert load(SHIPPED).guess_provider(host, path) == provider


@pytest.mark.parametrize(
    ("provider", "written", "provider_meant", "listed"),
    [
        ("anthropic", "claude-sonnet-4-5-20250929", "anthropic", "claude-sonnet-4-5"),
        ("", "anthropic/claude-sonnet-4-5", "anthropic", "claude-sonnet-4-5"),
        ("google", "models/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("google", "publishers/anthropic/models/claude-sonnet-4-5@20250929", "google", "claude-sonnet-4-5"),
        ("", "gemini/gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("azure", "gpt-35-turbo", "azure", "gpt-3.5-turbo"),
        ("azure", "gpt-4o-2024-08-06", "azure", "gpt-4o"),
        ("", "azure/gpt-4o", "azure", "gpt-4o"),
        ("aws", "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws",
         "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("", "eu.anthropic.claude-sonnet-4-5-20250929-v1:0", "aws",
         "regional.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("openai", "ft:gpt-4.1-2025-04-14:acme::abc", "openai", "gpt-4.1"),
        ("openai", "openai/gpt-4o", "openai", "gpt-4o"),
        ("litellm", "openai/gpt-4o", "openai", "gpt-4o"),
        ("", "GPT-4o", "openai", "gpt-4o"),
    ],
)  # fmt: skip
def test_model_ids_as_they_are_written(provider: str, written: str, provider_meant: str, listed: str):
    told = load(SHIPPED).describe(provider, written)
    assert (told.get("provider"), told.get("matched")) == (provider_meant, listed)


def test_the_model_that_answered_is_the_one_that_is_priced():
    """A provider may answer with another model than it was asked for; each has its own price."""
    table = load(SHIPPED)
    asked, answered = (
        table.price("openai", m, Usage(1000, 100), 1.795e9) for m in ("gpt-4o", "gpt-4o-mini-2024-07-18")
    )
    assert asked.total == 3_500_000_000
    assert answered.total == 210_000_000


def test_a_model_of_another_provider_is_not_priced_by_its_name():
    table = load(SHIPPED)
    assert not table.knows("groq", "openai/gpt-4o")
    assert not table.knows("", "someone/gpt-4o-distilled")
