"""Rules beyond the shape: each is broken once, alone."""

import pytest

from gateway.config.load import load
from gateway.config.problems import ConfigError
from gateway.config.semantics import CREDENTIALS, FRAMING, RESERVED

TOKEN = "0123456789abcdef"
X = "upstreams: {{x: {{dialect: openai, url: '{url}'{more}}}}}"


def upstream(url="http://127.0.0.1:9000", more=""):
    return X.format(url=url, more=more)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("listen: localhost", 'listen: expected "host:port"'),
        ("admin: 127.0.0.1:x", "admin: the port must be a number"),
        ("admin: 127.0.0.1:8787", "admin: cannot share its port with `listen`"),
        ("listen: '[::1]:7'\nadmin: '[::]:7'\nadmin_token: " + TOKEN, "admin: cannot share its port"),
        ("admin: 0.0.0.0:8788", "admin: 0.0.0.0:8788 is not on loopback, so `admin_token` is required"),
        ("admin_token: short", "admin_token: must have at least 16 characters"),
        ("admin_token: '0123456789 abcdef'", "admin_token: must have at least 16 characters"),
        (upstream("h"), "upstreams.x.url: a URL begins with http:// or https://"),
        (upstream("$URL"), "upstreams.x.url: a URL begins with http:// or https://; variables are read in secret"),
        (upstream("http://127.0.0.1:8787/v1"), "upstreams.x.url: points at the gateway itself"),
        (upstream("http://localhost:8787"), "upstreams.x.url: points at the gateway itself"),
        (upstream(more=", key: 'a b\tc '"), "upstreams.x.key: must be printable"),
        (upstream(more=", key: ''"), "upstreams.x.key: must be printable"),
        (upstream(more=", headers: {'a b': c}"), "upstreams.x.headers: a header name holds letters"),
        (
            upstream(more=", headers: {A: 1x, a: 2x}"),
            "upstreams.x.headers.a: stands twice but for upper and lower case",
        ),
        (upstream(more=', headers: {A: "x\\r\\nB: y"}'), "upstreams.x.headers.A: the value holds characters"),
        (upstream(more=", headers: {A: ''}"), "upstreams.x.headers.A: the value holds characters"),
        (upstream(more=", ca_file: gone.pem"), "upstreams.x.ca_file: cannot read"),
        (upstream(more=", ca_file: tollgate.yaml"), "upstreams.x.ca_file: holds no PEM certificate"),
        (upstream(more=', ca_file: "a\\0b"'), "upstreams.x.ca_file: not a file name"),
        ("tls: {certificate: gone.pem, key: tollgate.yaml}", "tls.certificate: cannot read"),
        ("tls: {certificate: tollgate.yaml, key: gone.pem}", "tls.key: cannot read"),
        ("tls: {certificate: tollgate.yaml, key: tollgate.yaml}", "tls: not a PEM certificate"),
        ("aliases: {a: ''}", "aliases.a: stands for no model"),
        ("aliases: {a: a}", "aliases.a: stands for itself"),
        (
            "aliases: {a: {model: b, upstream: opnai}}",
            'aliases.a.upstream: no upstream has this name; did you mean "openai"',
        ),
        ("aliases: {a: {model: b, upstream: qq}}", "aliases.a.upstream: no upstream has this name; known: openai,"),
        ("identity: {run_header: 'x y'}", "identity.run_header: not a header name"),
        ("journal: {segment_bytes: 2000000, retention_bytes: 1100000}", "journal.retention_bytes: must hold at least"),
        ('state: "a\\0b"\njournal: {directory: j}', "state: not a file name"),
        ('journal: {directory: "a\\nb"}', "journal.directory: not a file name"),
        ('telemetry: {log: "a\\0b"}', "telemetry.log: not a file name"),
        ("prices: {models: {m: {}}}", "prices.models.m: sets no price"),
        ("prices: {litellm_file: gone.json}", "prices.litellm_file: cannot read"),
        ("telemetry: {otlp: {endpoint: 'host:4318'}}", "telemetry.otlp.endpoint: a URL begins with"),
        ("allowed_origins: ['*']", "allowed_origins.0: must be a page's origin"),
        ("allowed_origins: [https://a.example, https://a.example/]", "allowed_origins.1: must be a page's origin"),
        ("allowed_origins: [https://A.example]", "allowed_origins.0: must be a page's origin"),
        ("telemetry: {otlp: {endpoint: 'http://h', headers: {Host: x}}}", "telemetry.otlp.headers.Host: this header"),
    ],
)
def test_a_broken_rule_is_the_one_problem(refused, text, problem):
    (line,) = refused(text)
    place, _, said = line.partition(": ")
    assert place.startswith("tollgate.yaml:")
    assert said.startswith(problem)


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_no_upstream_takes_the_name_of_a_route(refused, name):
    (line,) = refused(f"upstreams: {{{name}: {{dialect: openai, url: 'http://127.0.0.1:1'}}}}")
    assert "this name is a route of the gateway" in line


@pytest.mark.parametrize("name", sorted(FRAMING))
def test_headers_of_the_connection_cannot_be_set(refused, name):
    (line,) = refused(upstream(more=f", headers: {{{name.title()}: x}}"))
    assert "belongs to the connection" in line


@pytest.mark.parametrize("name", sorted(CREDENTIALS))
def test_an_identity_is_never_taken_from_a_credential(refused, name):
    (line,) = refused(f"identity: {{tenant_header: {name.title()}}}")
    assert "carries a credential" in line


@pytest.mark.parametrize(
    "text",
    [
        "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0",
        "listen: 127.0.0.1:1\nadmin: 127.0.0.2:1",
        "listen: '[::1]:8787'",
        "admin: 0.0.0.0:8788\nadmin_token: " + TOKEN,
        upstream("http://127.0.0.1:8788"),
        upstream(more=", headers: {A: 'b c', a-b: ü}"),
        "aliases: {a: {model: a, upstream: openai}}",
        "identity: {tenant_header: X-Team}",
        "allowed_origins: [https://a.example, 'http://[fd00::1]:3000', 'null']",
        "prices: {models: {m: {requests: 0}}}",
    ],
)
def test_what_keeps_the_rules_loads(loading, text):
    loading(text)


def test_without_a_key_the_gateway_listens_on_loopback_only(refused, loading):
    text = "listen: 0.0.0.0:8787"
    (line,) = refused(text)
    assert "everyone who reaches 0.0.0.0:8787 could use this gateway, for no virtual key is configured" in line
    (line,) = refused(text, OPENAI_API_KEY="k1", ANTHROPIC_API_KEY="k2")
    assert "everyone who reaches 0.0.0.0:8787 could spend the key of openai, anthropic" in line
    assert "tollgate keys create" in line
    assert "TOLLGATE_ALLOW_OPEN=1" in line
    assert refused(text, OPENAI_API_KEY="k1", TOLLGATE_ALLOW_OPEN="true")
    assert loading(text, OPENAI_API_KEY="k1", TOLLGATE_ALLOW_OPEN="1").listen == "0.0.0.0:8787"
    assert loading("", OPENAI_API_KEY="k1").listen == "127.0.0.1:8787"


def test_with_a_key_it_may_listen_elsewhere(loading, refused, home, key_store):
    text = "listen: 0.0.0.0:8787\nstate: s"
    assert refused(text)
    key_store(home / "s", ("k1", "ci", "core"))
    assert loading(text, OPENAI_API_KEY="k1").listen == "0.0.0.0:8787"


def test_a_certificate_and_its_key_load(loading, refused, certificate):
    chain, key = certificate
    assert loading(f"tls: {{certificate: {chain}, key: {key}}}").tls
    assert loading(upstream(more=f", ca_file: {chain}")).upstreams["x"].ca_file == str(chain)
    assert "not a PEM certificate" in refused(f"tls: {{certificate: {key}, key: {chain}}}")[0]


def test_all_broken_rules_are_said_together(home):
    (home / "tollgate.yaml").write_text("admin: x\naliases: {a: ''}\n" + upstream("h"))
    with pytest.raises(ConfigError) as caught:
        load(None, {"HOME": "/h"})
    assert [problem.path[0] for problem in caught.value.problems] == ["admin", "aliases", "upstreams"]
