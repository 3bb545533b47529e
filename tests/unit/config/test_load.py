"""From file, environment and command line to one configuration, or to everything that is wrong with them."""

import pickle

import msgspec
import pytest

from gateway.config.load import find, load, load_with_source, redacted
from gateway.config.problems import ConfigError
from gateway.config.schema import Config

CANARY = "sk-canary-0123456789abcdef"


def test_without_a_file_there_are_three_upstreams_and_the_clients_keys_pass(home):
    config = load(None, {"HOME": str(home)})
    assert {name: (u.dialect, u.url, u.provider, u.key) for name, u in config.upstreams.items()} == {
        "openai": ("openai", "https://api.openai.com", "openai", None),
        "anthropic": ("anthropic", "https://api.anthropic.com", "anthropic", None),
        "gemini": ("gemini", "https://generativelanguage.googleapis.com", "google", None),
    }
    assert (config.listen, config.admin, config.workers) == ("127.0.0.1:8787", "127.0.0.1:8788", 1)
    assert config.state == str(home / ".local/state/tollgate")
    assert config.journal.directory == str(home / ".local/state/tollgate/journal")


@pytest.mark.parametrize(
    ("env", "keys"),
    [
        ({"OPENAI_API_KEY": "o", "ANTHROPIC_API_KEY": "a", "GEMINI_API_KEY": "g"}, ["o", "a", "g"]),
        ({"GOOGLE_API_KEY": "google"}, [None, None, "google"]),
        ({"GOOGLE_API_KEY": "google", "GEMINI_API_KEY": "gemini"}, [None, None, "gemini"]),
        ({"OPENAI_API_KEY": ""}, [None, None, None]),
    ],
)
def test_keys_of_the_built_in_upstreams_come_from_the_environment(home, env, keys):
    config = load(None, {"HOME": str(home), **env})
    assert [config.upstreams[name].key for name in ("openai", "anthropic", "gemini")] == keys


def test_a_key_from_the_environment_is_taken_as_it_is(home):
    config = load(None, {"HOME": str(home), "OPENAI_API_KEY": "a$HOME$$b"})
    assert config.upstreams["openai"].key == "a$HOME$$b"


def test_the_file_adds_upstreams_and_replaces_one_wholly(loading):
    config = loading(
        "upstreams:\n  openai: {dialect: openai, url: 'http://127.0.0.1:1'}\n  mine: {dialect: opaque, url: 'http://x.y'}",
        OPENAI_API_KEY=CANARY,
    )
    assert list(config.upstreams) == ["openai", "anthropic", "gemini", "mine"]
    assert config.upstreams["openai"].key is None  # the key of openai does not go to another server


def test_where_the_file_is_looked_for(home):
    other = home / "other.yaml"
    other.write_text("workers: 2")
    assert find(None, {}) is None
    (home / "tollgate.yaml").write_text("workers: 3")
    assert load(None, {"HOME": "/h"}).workers == 3
    assert load(None, {"HOME": "/h", "TOLLGATE_CONFIG": str(other)}).workers == 2
    assert load(home / "tollgate.yaml", {"HOME": "/h", "TOLLGATE_CONFIG": str(other)}).workers == 3


def test_command_line_beats_environment_beats_file(loading):
    text = "workers: 2\nlisten: 127.0.0.1:1\nadmin: 127.0.0.1:2\ncapture: hash"
    config = loading(text, {"listen": "127.0.0.1:5"}, TOLLGATE_LISTEN="127.0.0.1:3", TOLLGATE_ADMIN="127.0.0.1:4")
    assert (config.listen, config.admin, config.workers, config.capture) == ("127.0.0.1:5", "127.0.0.1:4", 2, "hash")


def test_every_setting_of_the_environment(home):
    env = {
        "TOLLGATE_WORKERS": "4",
        "TOLLGATE_STATE": "here",
        "TOLLGATE_ADMIN_TOKEN": "$0123456789$ABCDEF",
        "HOME": "/h",
    }
    config = load(None, env)
    assert (config.workers, config.admin_token) == (4, "$0123456789$ABCDEF")
    assert config.state == str(home / "here")


def test_overrides_reach_into_sections_and_leave_the_file_as_it_is(loading, home):
    config = loading("telemetry: {label_limit: 7}", {"telemetry.log": None, "journal.required": True})
    assert (config.telemetry.log, config.telemetry.label_limit, config.journal.required) == (None, 7, True)
    assert load(None, {"HOME": "/h"}).telemetry.log == "stdout"


def test_the_standard_variables_describe_the_collector(home):
    env = {
        "HOME": "/h",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_HEADERS": "Authorization=Bearer%20a$b, x-team = core ,",
    }
    otlp = load(None, env).telemetry.otlp
    assert otlp is not None
    assert (otlp.endpoint, otlp.protocol) == ("http://127.0.0.1:4317", "grpc")
    assert otlp.headers == {"Authorization": "Bearer a$b", "x-team": "core"}


@pytest.mark.parametrize("text", ["telemetry: {otlp: null}", "telemetry: {otlp: {endpoint: 'http://mine:1'}}"])
def test_what_the_file_says_of_the_collector_stands(loading, text):
    otlp = loading(text, OTEL_EXPORTER_OTLP_ENDPOINT="http://other:1").telemetry.otlp
    assert otlp is None or otlp.endpoint == "http://mine:1"


def test_secrets_are_read_from_the_environment(loading):
    config = loading(
        """
        admin_token: "${TOKEN}"
        upstreams:
          x: {dialect: openai, url: "http://127.0.0.1:1", key: $KEY, headers: {X-Auth: "Bearer $KEY", Y: "a$$b"}}
        """,
        TOKEN="0123456789abcdef",
        KEY=CANARY,
    )
    assert config.admin_token == "0123456789abcdef"
    assert config.upstreams["x"].key == CANARY
    assert config.upstreams["x"].headers == {"X-Auth": f"Bearer {CANARY}", "Y": "a$b"}


def test_a_missing_secret_names_field_and_variable(refused):
    text = (
        "upstreams:\n  x:\n    dialect: openai\n    url: http://127.0.0.1:1\n    key: $MY_KEY\n    headers: {A: $EMPTY}"
    )
    assert refused(text, EMPTY="") == [
        "tollgate.yaml:5: upstreams.x.key: the environment variable MY_KEY is not set",
        "tollgate.yaml:6: upstreams.x.headers.A: the environment variable EMPTY is not set",
    ]


@pytest.mark.parametrize("written", ["${MY_KEY:-none}", "${MY_KEY", "${my key}", "${}"])
def test_what_only_begins_like_a_variable_is_no_secret(refused, written):
    text = f"upstreams:\n  x:\n    dialect: openai\n    url: http://127.0.0.1:1\n    key: '{written}'"
    said = "`${` begins no `${NAME}`; write `$${` where it is meant as it stands"
    assert refused(text, MY_KEY="secret") == [f"tollgate.yaml:5: upstreams.x.key: {said}"]


def test_dollars_that_name_nothing_stand_for_themselves(loading):
    text = "upstreams: {x: {dialect: openai, url: 'http://127.0.0.1:1', key: 'a$1b$${c}$'}}"
    assert loading(text).upstreams["x"].key == "a$1b${c}$"


def test_dollars_outside_secret_fields_are_plain_text(loading):
    assert loading("aliases: {cheap: $MODEL}").aliases == {"cheap": "$MODEL"}


def test_file_names_are_relative_to_the_configuration(home):
    place = home / "etc"
    place.mkdir()
    (place / "tollgate.yaml").write_text("state: data\njournal: {directory: ../j}\ntelemetry: {log: calls.log}")
    config = load(place / "tollgate.yaml", {"HOME": str(home)})
    assert config.state == str(place / "data")
    assert config.journal.directory == str(place / "../j")
    assert config.telemetry.log == str(place / "calls.log")


@pytest.mark.parametrize(("written", "meant"), [("~", ""), ("~/x", "/x"), ("~root/x", "/etc/~root/x"), ("/a", "/a")])
def test_a_tilde_is_the_home_of_this_user(home, written, meant):
    (home / "etc").mkdir()
    (home / "etc/tollgate.yaml").write_text(f'state: "{written}"')
    config = load(home / "etc/tollgate.yaml", {"HOME": str(home)})
    assert config.state == (meant if meant == "/a" else f"{home}{meant}")


def test_where_the_state_is_without_being_told(home, monkeypatch):
    assert load(None, {"HOME": "/h"}).state == "/h/.local/state/tollgate"
    assert load(None, {"HOME": "/h", "XDG_STATE_HOME": "/x"}).state == "/x/tollgate"
    assert load(None, {"HOME": "/h", "XDG_STATE_HOME": "x"}).state == "/h/.local/state/tollgate"
    monkeypatch.setattr("os.path.expanduser", lambda name: name)  # nobody knows this user
    with pytest.raises(ConfigError, match="defaults: state: there is no home directory to keep the state in"):
        load(None, {})
    assert load(None, {"TOLLGATE_STATE": "/s"}).journal.directory == "/s/journal"


def test_every_problem_is_said_at_once_with_its_place(refused):
    lines = refused(
        "listen: 8787\nworkers: 0\nupstreams:\n  openai:\n    dialect: opnai\n    timouts: {connect: 10s}\nadmn: x\n",
        TOLLGATE_WORKERS="many",
    )
    assert lines == [
        'TOLLGATE_WORKERS: workers: expected a whole number >= 1 and <= 64, got "many"',
        "tollgate.yaml:1: listen: expected a string, got 8787",
        'tollgate.yaml:4: upstreams.openai: "url" is missing; expected a string',
        "tollgate.yaml:5: upstreams.openai.dialect: expected one of anthropic, bedrock, cohere, "
        'gemini, ollama, opaque, openai, got "opnai"; did you mean "openai"?',
        'tollgate.yaml:6: upstreams.openai.timouts: unknown field; did you mean "timeouts"?',
        'tollgate.yaml:7: admn: unknown field; did you mean "admin"?',
    ]


def test_faults_of_syntax_and_of_shape_are_said_together(refused):
    assert refused("a: 1\nlisten: x:1\nlisten: y:1\n") == [
        "tollgate.yaml:1: a: unknown field; known here: " + ", ".join(Config.__struct_fields__),
        "tollgate.yaml:3: listen: stands twice, first on line 2",
    ]


def test_a_file_that_is_not_there(home):
    with pytest.raises(ConfigError, match=r"^nowhere.yaml: cannot read it: No such file or directory$"):
        load(home.joinpath("nowhere.yaml").relative_to(home), {})


def test_a_file_that_is_not_text(home):
    (home / "tollgate.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 3"):
        load(None, {})


def test_a_byte_order_mark_is_skipped(home):
    (home / "tollgate.yaml").write_bytes(b"\xef\xbb\xbfworkers: 2")
    assert load(None, {"HOME": "/h"}).workers == 2


SECRETS = f"""
admin_token: {CANARY}
upstreams:
  x: {{dialect: openai, url: "http://127.0.0.1:1", key: {CANARY}, headers: {{Authorization: "Bearer {CANARY}"}}}}
telemetry: {{otlp: {{endpoint: "http://127.0.0.1:1", headers: {{k: {CANARY}}}}}}}
spending: {{redis: "redis://:{CANARY}@127.0.0.1"}}
budgets: [{{scope: team, usd: 1, taper: [{{at: 0.5, effort: low}}]}}]
"""


def test_no_view_of_the_configuration_shows_a_secret(loading):
    config = loading(SECRETS, OPENAI_API_KEY=CANARY)
    assert CANARY in msgspec.json.encode(config).decode()  # it is there
    views = [repr(config), str(config), repr(redacted(config)), f"{config.upstreams}", repr(config.telemetry)]
    assert not [view for view in views if "canary" in view]
    assert redacted(config)["upstreams"]["x"]["headers"] == {"Authorization": "***"}
    assert redacted(config)["admin_token"] == "***"
    assert redacted(config)["spending"]["redis"] == "***"
    assert redacted(config)["budgets"][0]["taper"][0]["effort"] == "low"
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize(
    "text",
    [
        f"{CANARY}",
        f"key: {CANARY}",
        f"listen: {CANARY}",
        f"workers: {CANARY}",
        f"capture: {CANARY}",
        f"upstreams: {CANARY}",
        f"upstreams: {{x: {CANARY}}}",
        f"upstreams: {{x: {{dialect: {CANARY}, url: {CANARY}, key: [{CANARY}]}}}}",
        f"upstreams: {{x: {{dialect: openai, url: {CANARY}}}}}",
        f"upstreams: {{x: {{dialect: openai, url: 'https://{CANARY}@h'}}}}",
        f"upstreams: {{x: {{dialect: openai, url: 'https://h/?key={CANARY}'}}}}",
        f"upstreams: {{x: {{dialect: openai, url: 'https://h', key: '{CANARY} '}}}}",
        f"upstreams: {{x: {{dialect: openai, url: 'https://h', headers: {{a: \"{CANARY}\\n\"}}}}}}",
        f"admin_token: {CANARY[:14]}",
        f"admin_token: '{CANARY} {CANARY}'",
        f"a: 'x\n{CANARY}: b: c",
        f"identity: {{tenant: '{CANARY}!'}}",
        f"budgets: {CANARY}",
        f"budgets: [{CANARY}]",
        f"budgets: [{{scope: {CANARY}}}]",
        f"spending: {{redis: {CANARY}}}",
        f"spending: {{redis: [{CANARY}]}}",
        f"spending: {{timezone: {CANARY}}}",
    ],
)
def test_no_message_shows_a_secret_wherever_it_was_put(refused, text):
    for line in refused(text):
        assert "canary" not in line


def test_the_source_of_a_configuration_is_known(home):
    (home / "tollgate.yaml").write_text("workers: 2")
    loaded = load_with_source(None, {"HOME": "/h"}, {})
    assert str(loaded.file) == "tollgate.yaml"
    assert loaded.document.line(("workers",)) == 1
