"""Invariant: whatever stands in the file or the environment, loading gives a configuration or a ConfigError without a
secret in it; and what loads can be checked, shown, compared and sent to another process."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import msgspec
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.check import warnings
from gateway.config.load import load_with_source, redacted
from gateway.config.problems import ConfigError
from gateway.config.reload import diff, needs_restart
from gateway.config.schema import Config

CANARY = "sk-canary-0123456789abcdef"
TEXT = f"""
listen: 127.0.0.1:8787
admin_token: {CANARY}
workers: 2
state: state
upstreams:
  mine: &u
    dialect: openai
    url: http://127.0.0.1:9000/v1
    key: $KEY
    headers: {{x-team: core, authorization: 'Bearer ${{KEY}}'}}
    timeouts: {{connect: 2.5}}
  other: *u
aliases: {{fast: {{model: m, upstream: mine}}, smart: m}}
prices: {{models: {{m: {{input: 1, output: 2}}}}}}
identity: {{tenant: acme, run_header: x-run}}
journal: {{directory: j, segment_bytes: 65536}}
telemetry: {{otlp: {{endpoint: "http://127.0.0.1:4318", headers: {{k: {CANARY}}}}}, log: calls.log}}
limits: {{drain_seconds: 5}}
"""
DATA = yaml.safe_load(TEXT)
PIECES = [
    *"{}[]&*!|>'\"%@`,:?-#~$\\ \n\t\0",
    "\ufeff",
    "\x85",
    "\u2028",
    "---",
    "<<: *u",
    "!!python/name:os.system",
    "9" * 30,
]


class Catalogue:
    def knows(self, provider: str, model: str) -> bool:
        return False

    def guess_provider(self, host: str, url_path: str = "") -> str:
        return ""

    def provider_of(self, upstream: str, host: str, url_path: str = "") -> str:
        return upstream


def try_out(place: Path, text: str, env: dict[str, str]) -> None:
    file = place / "tollgate.yaml"
    file.write_text(text, errors="surrogatepass")
    loaded, refusal = None, ""
    try:
        loaded = load_with_source(file, {"HOME": str(place), "KEY": CANARY, **env}, {})
    except ConfigError as error:
        refusal = str(error)
    if loaded is None:
        assert refusal
        assert CANARY not in refusal
        return
    config = loaded.config
    shown = [repr(config), json.dumps(redacted(config)), *map(str, warnings(loaded, Catalogue(), Catalogue()))]
    assert not [view for view in shown if CANARY in view]
    assert diff(config, config) == needs_restart(config, config) == []
    assert pickle.loads(pickle.dumps(config)) == config
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(config), type=Config) == config


@given(st.lists(st.tuples(st.integers(0, len(TEXT)), st.integers(0, 9), st.sampled_from(PIECES)), max_size=4))
def test_text_with_pieces_cut_out_and_put_in(tmp_path_factory, edits):
    text = TEXT
    for place, length, piece in edits:
        text = text[:place] + piece + text[place + length :]
    try_out(tmp_path_factory.getbasetemp(), text, {})


def paths(value, path=()):
    yield path
    for key, entry in value.items() if isinstance(value, dict) else ():
        yield from paths(entry, (*path, key))


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(
        ["~", "~nobody-has-this-name/x", "/", "", ".", "/dev/null", "a\0b", "$", "${", "$KEY", "$NO", "stdout"]
    ),
    st.sampled_from(["127.0.0.1:0", "[::1]:1", "http://[::1]:1", "http://x/%2e%2e", "file:///etc/passwd", "h" * 5000]),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)


@given(st.lists(st.tuples(st.sampled_from([path for path in paths(DATA) if path]), VALUES), max_size=3))
@example([(("state",), "~nobody-has-this-name/x")])
@example([(("journal", "directory"), "a\0b")])
@example([(("telemetry", "log"), "~nobody-has-this-name")])
@example([(("upstreams", "mine", "url"), "http://\u2100.com")])
def test_values_of_every_kind_in_every_place(tmp_path_factory, changes):
    data = json.loads(json.dumps(DATA))
    for path, value in changes:
        section = data
        for key in path[:-1]:
            section = section.get(key) if isinstance(section, dict) else None
        if isinstance(section, dict):
            section[path[-1]] = value
    try_out(tmp_path_factory.getbasetemp(), yaml.safe_dump(data), {})


@given(
    st.dictionaries(
        st.sampled_from(
            ["TOLLGATE_LISTEN", "TOLLGATE_WORKERS", "TOLLGATE_STATE", "TOLLGATE_ADMIN_TOKEN", "XDG_STATE_HOME"]
        )
        | st.sampled_from(["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_PROTOCOL"])
        | st.sampled_from(["OPENAI_API_KEY", "HOME", "KEY"]),
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20),
    )
)
def test_any_environment(tmp_path_factory, env):
    try_out(tmp_path_factory.getbasetemp(), "", env)
