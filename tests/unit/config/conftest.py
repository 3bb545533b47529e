"""A directory to load from, and a certificate."""

import contextlib
import shutil
import sqlite3
import subprocess

import pytest

from gateway.config.load import load
from gateway.config.problems import ConfigError


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty working directory, which is the home directory too."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loading(home):
    """`loading(text, **env)` writes tollgate.yaml and loads it."""

    def loading_(text="", overrides=None, **env):
        (home / "tollgate.yaml").write_text(text)
        return load(None, {"HOME": str(home), **env}, overrides)

    return loading_


@pytest.fixture
def refused(loading):
    """`refused(text, **env)` gives the lines of the problems; fails if there are none."""

    def refused_(text="", overrides=None, **env):
        with pytest.raises(ConfigError) as caught:
            loading(text, overrides, **env)
        return str(caught.value).splitlines()

    return refused_


@pytest.fixture
def key_store():
    """`key_store(directory, (id, name, team), ...)` makes what is read of a key store."""

    def make(directory, *keys):
        directory.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(directory / "keys.sqlite")) as database, database:
            database.execute("CREATE TABLE keys (id TEXT, name TEXT, team TEXT)")
            database.executemany("INSERT INTO keys VALUES (?, ?, ?)", keys)

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Paths of a self-signed certificate and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    place = tmp_path_factory.mktemp("tls")
    chain, key = place / "chain.pem", place / "key.pem"
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*command, "-keyout", key, "-out", chain], check=True, capture_output=True, timeout=60)
    return chain, key
