"""Warnings: each from a configuration that is usable, but doubtful in one way."""

import os

import pytest

from gateway.config.check import keys_in_use, warnings
from gateway.config.load import load_with_source


class Catalogue:
    """Knows two models of openai, one of anthropic, and the hosts of both."""

    MODELS = frozenset({("openai", "gpt-x"), ("openai", "gpt-y"), ("anthropic", "claude-x"), ("", "gpt-x")})

    def knows(self, provider, model):
        return (provider, model) in self.MODELS

    def guess_provider(self, host, url_path=""):
        return {"api.openai.com": "openai", "api.anthropic.com": "anthropic"}.get(host, "")

    def provider_of(self, upstream, host, url_path=""):
        return self.guess_provider(host, url_path) or upstream


@pytest.fixture
def warned(home):
    def warned_(text="", mode=0o600, **env):
        file = home / "tollgate.yaml"
        file.write_text(text)
        file.chmod(mode)
        loaded = load_with_source(None, {"HOME": str(home), **env}, {})
        return [str(warning) for warning in warnings(loaded, Catalogue(), Catalogue())]

    return warned_


def test_the_defaults_are_beyond_doubt(warned):
    assert warned() == []


X = "upstreams: {x: {dialect: openai, url: 'https://models.example.com', provider: p}}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (X.replace("https", "http"), "1: upstreams.x.url: prompts and keys go to models.example.com in plain text"),
        (X.replace(", provider: p", ""), "1: upstreams.x.url: the provider behind this URL is not known"),
        ("aliases: {a: gpt-z}", '1: aliases.a: no price is known for "gpt-z"'),
        ("aliases: {a: {model: claude-x, upstream: openai}}", '1: aliases.a: no price is known for "claude-x"'),
        ("aliases: {a: gpt-x, b: a}", '1: aliases.b: stands for "a", an alias itself'),
        ("prices: {models: {gpt-z: {output: 1}}}", "1: prices.models.gpt-z: the catalogue has no model of this name"),
        ("prices: {models: {x/gpt-z: {input: 1}}}", '1: prices.models."x/gpt-z": the catalogue has no model'),
        ("state: tollgate.yaml/x\njournal: {directory: j}", ":1: state: "),
        ("journal: {directory: /dev/null/j}", ":1: journal.directory: /dev/null is not writable"),
        (f"journal: {{directory: {'d' * 300}}}", "File name too long"),
        ("telemetry: {otlp: {endpoint: 'http://h:4317'}}", "1: telemetry.otlp.endpoint: port 4317 is the usual one of"),
        ("telemetry: {otlp: {endpoint: 'http://h:4318', protocol: grpc}}", "1: telemetry.otlp.endpoint: port 4318"),
        ("slos: [{name: a, sli: tools, objective: 83}]", "1: slos.0.objective: nobody is woken for it"),
        (
            "slos: [{name: a, sli: availability, objective: 99, match: {provider: gemini}}]",
            "1: slos.0.match.provider: no upstream is of the provider gemini: the goal will have no events",
        ),
    ],
)
def test_one_doubt_one_warning(warned, text, said):
    (line,) = warned(text)
    assert said in line


@pytest.mark.parametrize(
    "text",
    [
        "upstreams: {x: {dialect: openai, url: 'http://127.0.0.1:9000', provider: p}}",
        "upstreams: {x: {dialect: opaque, url: 'https://tools.example.com'}}",
        "aliases: {a: gpt-x, b: {model: claude-x, upstream: anthropic}, c: claude-x}",
        "prices: {models: {gpt-x: {output: 1}, openai/gpt-y: {output: 1}, n: {input: 1, output: 1}, r: {requests: 1}}}",
        "telemetry: {otlp: {endpoint: 'http://h:4317', protocol: grpc}}",
        "slos: [{name: a, sli: tools, objective: 50, page: false}, {name: b, sli: tools, objective: 83.4}]",
        "slos: [{name: a, sli: availability, objective: 99, match: {provider: google}}]",
    ],
)
def test_what_is_clear_is_not_warned_of(warned, text):
    assert warned(text) == []


def test_an_open_port_is_warned_of_twice_without_tls(warned):
    lines = warned("listen: 0.0.0.0:8787", TOLLGATE_ALLOW_OPEN="1")
    assert len(lines) == 2
    assert "everyone who reaches 0.0.0.0:8787 can use this gateway" in lines[0]
    assert "plain text" in lines[1]


def test_with_a_key_only_the_plain_text_is_doubtful(warned, home, key_store):
    key_store(home / "s", ("k1", "ci", "core"))
    (line,) = warned("listen: 0.0.0.0:8787\nstate: s")
    assert "plain text" in line


SECRETS = """
admin_token: 0123456789abcdef
upstreams:
  x:
    dialect: openai
    url: https://h.example.com
    provider: p
    key: sk-literal
    headers: {X-Api-Key: literal, Authorization: Bearer $KEY, X-Team: core}
  y: {dialect: openai, url: "https://h.example.com", provider: p, key: $KEY}
telemetry: {otlp: {endpoint: "http://h", headers: {authorization: literal}}}
spending: {redis: "redis://:literal@h"}
"""


def test_secrets_written_out_want_a_private_file(warned):
    assert warned(SECRETS, KEY="k") == []
    lines = warned(SECRETS, mode=0o644, KEY="k")
    assert [line.split(": ")[1] for line in lines] == [
        "admin_token",
        "upstreams.x.key",
        "upstreams.x.headers.X-Api-Key",
        "telemetry.otlp.headers.authorization",
        "spending.redis",
    ]
    assert warned("spending: {redis: 'redis://h'}", mode=0o644) == []
    assert not [line for line in lines if "literal" in line or "0123" in line]


def test_looking_leaves_nothing_behind(warned, home):
    warned()
    assert os.listdir(home) == ["tollgate.yaml"]


def test_it_is_said_whose_key_is_used(home):
    loaded = load_with_source(None, {"HOME": str(home), "OPENAI_API_KEY": "sk-canary"}, {})
    first, second, _ = keys_in_use(loaded.config)
    assert first == "openai: https://api.openai.com (configured key)"
    assert second == "anthropic: https://api.anthropic.com (the key of the client passes through)"
