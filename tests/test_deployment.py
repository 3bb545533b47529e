"""What starts the gateway elsewhere: container image, compose file, Makefile, CI script. No container engine needed."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alerts.parts import Links
from gateway import cli
from gateway.config.address import parse_address
from gateway.config.environment import OTLP, SETTINGS
from gateway.config.load import CONFIG_VARIABLE, load
from gateway.config.problems import ConfigError
from gateway.config.semantics import ALLOW_OPEN

ROOT = Path(__file__).parents[1]
KEYS = {"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY"}
VARIABLES = {*SETTINGS, *OTLP, *KEYS, CONFIG_VARIABLE, ALLOW_OPEN}
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
TOKEN = "0123456789abcdef"


# -- the image ----------------------------------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) of the Dockerfile, continued lines joined."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def final() -> dict[str, list[str]]:
    """Instructions of the last stage, by name."""
    found: dict[str, list[str]] = {}
    for name, arguments in instructions():
        if name == "FROM":
            found = {}
        found.setdefault(name, []).append(arguments)
    return found


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in final()["ENV"] for pair in line.split())


def test_the_image_is_slim_and_built_in_stages():
    bases = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    assert len(bases) == 2
    assert all(re.fullmatch(r"python:3\.\d+-slim", base) for base in bases)


def test_the_image_runs_as_an_unprivileged_user():
    (user,) = final()["USER"]
    uid, gid = user.split(":")
    assert int(uid) >= 10_000
    assert int(gid) >= 10_000
    assert f"--uid {uid}" in " ".join(final()["RUN"])


def test_everything_copied_is_there_and_not_ignored():
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = [pattern[1:] for pattern in ignored if pattern.startswith("!")]
    assert ignored[0] == "*"
    for name, arguments in instructions():
        if name == "COPY" and not arguments.startswith("--from"):
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_what_the_image_starts_is_a_command():
    words = json.loads(final()["ENTRYPOINT"][0]) + json.loads(final()["CMD"][0])
    assert words[0] == "tollgate"
    assert cli.parser().parse_args(words[1:])


def test_the_image_listens_everywhere_and_keeps_its_state_in_the_volume():
    env = environment()
    assert {name for name in env if name.startswith("TOLLGATE_")} <= set(SETTINGS)
    config = load(None, {**env, "TOLLGATE_ADMIN_TOKEN": TOKEN, ALLOW_OPEN: "1", "HOME": "/h"})
    addresses = [parse_address(config.listen), parse_address(config.admin)]
    assert all(address.wildcard for address in addresses)
    assert final()["EXPOSE"] == [" ".join(str(address.port) for address in addresses)]
    assert [config.state] == final()["VOLUME"]


@pytest.mark.parametrize(
    ("given", "named"),
    [({}, "TOLLGATE_ADMIN_TOKEN"), ({"TOLLGATE_ADMIN_TOKEN": TOKEN}, ALLOW_OPEN)],
)
def test_the_image_says_what_it_must_be_told(given, named):
    with pytest.raises(ConfigError, match=named):
        load(None, {**environment(), "HOME": "/h", **given})
    assert named in (ROOT / "Dockerfile").read_text()


def test_the_image_documents_only_variables_that_are_read():
    names = set(re.findall(r"\b(?:TOLLGATE|OTEL)_[A-Z_]+|\b[A-Z]+_API_KEY", (ROOT / "Dockerfile").read_text()))
    assert names <= VARIABLES


def test_the_health_check_asks_the_admin_port():
    command = json.loads(final()["HEALTHCHECK"][0].split("CMD ", 1)[1])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    (port,) = re.findall(r"http://127\.0\.0\.1:(\d+)/healthz", command[2])
    assert int(port) == parse_address(environment()["TOLLGATE_ADMIN"]).port


# -- compose ------------------------------------------------------------------------------------------------------


def test_compose_gives_the_gateway_what_it_needs_and_no_more():
    gateway = COMPOSE["services"]["gateway"]
    assert (ROOT / gateway["build"] / "Dockerfile").exists()
    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    assert "privileged" not in gateway
    assert set(gateway["environment"]) <= VARIABLES
    state = environment()["TOLLGATE_STATE"]
    assert f"state:{state}" in gateway["volumes"]


def test_compose_publishes_on_loopback_only():
    for service in COMPOSE["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


def test_compose_waits_longer_than_the_gateway_drains():
    config = load(None, {"HOME": "/h"})
    assert int(COMPOSE["services"]["gateway"]["stop_grace_period"].rstrip("s")) > config.limits.drain_seconds


def test_with_what_compose_sets_the_configuration_loads():
    given = COMPOSE["services"]["gateway"]["environment"]
    filled = {
        name: re.sub(r"\$\{\w+:-\}", "", re.sub(r"\$\{\w+:\?.*\}", TOKEN, value)) for name, value in given.items()
    }
    endpoint = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OPENAI_API_KEY": "k"}
    otlp = load(None, {"HOME": "/h", **environment(), **filled, **endpoint}).telemetry.otlp
    assert otlp is not None
    assert otlp.protocol == "http/protobuf"


def test_every_mount_volume_secret_and_service_named_exists():
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
        if "image" in service:
            assert re.search(r":v?\d+\.\d+\.\d+$", service["image"]), "pinned to a version"
            assert service["profiles"]


def test_the_redis_of_compose_evicts_nothing_keeps_its_data_and_is_reached_by_no_other_machine(tmp_path):
    redis = COMPOSE["services"]["redis"]
    settings = dict(zip(redis["command"][1::2], redis["command"][2::2], strict=True))
    assert settings == {"--appendonly": "yes", "--maxmemory-policy": "noeviction"}
    assert "ports" not in redis
    assert redis["volumes"] == ["redis:/data"]
    (stated,) = re.findall(r"`(spending: .*)`", (ROOT / "compose.yaml").read_text())
    (tmp_path / "tollgate.yaml").write_text(stated)
    assert load(tmp_path / "tollgate.yaml", {"HOME": "/h"}).spending.redis == "redis://redis:6379/0"


def test_prometheus_scrapes_the_admin_port_with_the_token():
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())["scrape_configs"]
    port = parse_address(environment()["TOLLGATE_ADMIN"]).port
    assert job["static_configs"] == [{"targets": [f"gateway:{port}"]}]
    assert job["metrics_path"] == "/metrics"
    secret = Path(job["authorization"]["credentials_file"])
    assert secret.parent == Path("/run/secrets")
    assert COMPOSE["secrets"][secret.name] == {"environment": "TOLLGATE_ADMIN_TOKEN"}
    assert secret.name in COMPOSE["services"]["prometheus"]["secrets"]


def test_prometheus_gets_every_rule_and_serves_the_runbook_where_alerts_lead():
    service = COMPOSE["services"]["prometheus"]
    mounted = {volume.split(":")[0]: volume.split(":")[1] for volume in service["volumes"]}
    for path in (ROOT / "alerts").glob("*.yaml"):
        assert mounted[f"./alerts/{path.name}"] == f"/etc/prometheus/rules/{path.name}"
    settings = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    assert settings["rule_files"] == ["/etc/prometheus/rules/*.yaml"]
    (manager,) = settings["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert manager.partition(":")[0] in COMPOSE["services"]
    assets = next(word.partition("=")[2] for word in service["command"] if word.startswith("--web.user-assets="))
    assert mounted["./alerts/RUNBOOK.md"] == f"{assets}/RUNBOOK.md"
    assert Links().runbook == "http://127.0.0.1:9090/user/RUNBOOK.md"
    assert "127.0.0.1:9090:9090" in service["ports"]


def test_grafana_gets_its_data_source_and_its_dashboards():
    service = COMPOSE["services"]["grafana"]
    mounted = {volume.split(":")[1]: volume.split(":")[0] for volume in service["volumes"]}
    home = Path(service["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / mounted[str(home.parent)] / home.name).is_file()
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/dashboards/tollgate.yaml").read_text())["providers"]
    assert provider["options"]["path"] == str(home.parent)
    sources = yaml.safe_load((ROOT / "deploy/grafana/datasources/prometheus.yaml").read_text())["datasources"]
    for source in sources:
        host, _, port = source["url"].removeprefix("http://").partition(":")
        assert any(published.endswith(f":{port}") for published in COMPOSE["services"][host]["ports"])
    (exemplars,) = sources[0]["jsonData"]["exemplarTraceIdDestinations"]
    assert exemplars["name"] == "trace_id"
    assert "127.0.0.1:3000:3000" in service["ports"]
    assert Links().grafana == "http://127.0.0.1:3000"


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_prometheus_takes_its_configuration():
    command = ["promtool", "check", "config", "--syntax-only", str(ROOT / "deploy/prometheus.yml")]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.returncode == 0, result.stderr


def test_the_collector_uses_only_what_it_defines():
    config = yaml.safe_load((ROOT / "deploy/collector.yaml").read_text())
    for pipeline in config["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(config[kind])
    ports = {
        kind: parse_address(each["endpoint"]).port for kind, each in config["receivers"]["otlp"]["protocols"].items()
    }
    assert ports == {"grpc": 4317, "http": 4318}


# -- make and CI --------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_makefile_explains_its_targets_and_has_them():
    explained = set(re.findall(r"^# make ([a-z-]+)", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        "demo",
        "test",
        "pytest",
        "test-clients",
        "test-backends",
        "prove",
        "bench",
        "bench-peers",
        "bench-outage",
        "pictures",
        "dashboards",
        "check",
        "constraints",
        "clean",
    }
    assert named == explained <= targets()


def test_the_makefile_calls_commands_and_files_that_exist():
    recipes = re.findall(r"^\t(.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in (line.split() for line in recipes):
        if words[0].endswith("/tollgate"):
            assert cli.parser().parse_args(words[1:])
        for word in words:
            if re.fullmatch(r"tests/[a-z_/]+\.(py|sh)", word):
                assert (ROOT / word).is_file(), word
            if word == "tests.bench":
                assert (ROOT / "tests/bench/__main__.py").is_file()


@pytest.mark.parametrize("script", [".ci/run", ".ci/tools"])
def test_scripts_can_be_run(script):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    shell = "bash" if path.read_text().startswith("#!/bin/bash") else "sh"
    assert subprocess.run([shell, "-n", path], check=False, timeout=10).returncode == 0


def ci(place: Path, recipe: str, *, lint: str = "echo fine", npm: bool = False) -> subprocess.CompletedProcess[str]:
    """Run the CI script in a directory whose Makefile does as told, with or without npm."""
    (place / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci/run", place / ".ci/run")
    (place / "Makefile").write_text(
        f"test: check pytest\ncheck:\n\t@{lint}\npytest:\n\t@{recipe}\n"
        "test-clients:\n\t@echo '=== 4 passed in 2.00s ==='\n.venv/.installed-dev tools:\n"
    )
    programs = place / "bin"
    programs.mkdir()
    used = ("bash", "sh", "make", "tee", "grep", "mktemp", "rm", "dirname", "echo", "cat", "false", "setsid", "nice")
    for name in used:
        (programs / name).symlink_to(shutil.which(name) or name)
    if npm:
        (programs / "npm").symlink_to(sys.executable)
    return subprocess.run(
        [place / ".ci/run"],
        cwd="/",
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_ci_ends_with_the_closing_lines_of_pytest(tmp_path):
    result = ci(tmp_path, "echo '=== 408 passed, 2 skipped in 4.41s ==='", npm=True)
    assert result.returncode == 0
    mine = "=== 408 passed, 2 skipped in 4.41s ==="  # of both parts
    assert result.stdout.splitlines()[-3:] == ["=== 4 passed in 2.00s ===", mine, mine]


def test_ci_runs_the_tests_also_where_lint_fails(tmp_path):
    result = ci(tmp_path, "echo '=== 408 passed in 4.41s ==='", lint="false")
    assert result.returncode != 0
    assert result.stdout.splitlines()[-1] == "=== 408 passed in 4.41s ==="


@pytest.mark.parametrize(
    "recipe",
    [
        "echo '=== 1 failed, 2 passed in 1.00s ==='; false",
        "echo nothing",
        "echo '=== no tests ran in 0.01s ==='",
        "false",
    ],
)
def test_ci_fails_with_what_it_runs(tmp_path, recipe):
    assert ci(tmp_path, recipe).returncode != 0


def test_ci_gives_no_input_to_what_it_runs(tmp_path):
    result = ci(tmp_path, 'test -z "$$(cat)" && echo "=== 1 passed in 1.00s ==="')
    assert result.returncode == 0
