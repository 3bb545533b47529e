"""The chart and the plain manifests: rendered by Helm itself, held against the schemas of Kubernetes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.config.address import parse_address
from gateway.config.load import load
from gateway.config.semantics import ALLOW_OPEN

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed: the chart is not rendered")
from helm_python import chart as helm_chart  # noqa: E402

ROOT = Path(__file__).parents[1]
CHART = ROOT / "deploy" / "chart"
VERSION = "1.30"
ALL = {
    "allowOpen": True,
    "providerKeys": "provider-keys",
    "image": {"pullSecrets": ["registry-a", "registry-b"]},
    "config": {"workers": 2, "budgets": [{"scope": "global", "usd": 500, "per": "month"}]},
    "networkPolicy": {"moreEgress": [{"ports": [{"port": 6379, "protocol": "TCP"}]}], "monitoring": {"team": "watch"}},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True},
        "dashboards": {"enabled": True},
        "links": {"runbook": "https://wiki/runbook", "grafana": "https://grafana"},
    },
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "agents", "operator": "Exists"}],
    "podAnnotations": {"note": "x"},
}
Document = dict[str, Any]


def rendered(values: Document, release: str = "gate") -> list[Document]:
    with helm_chart.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        texts = chart.render(values, name=release, namespace="agents")
    found: list[Document] = [document for text in texts.values() for document in yaml.safe_load_all(text) if document]
    return found


def plain() -> list[Document]:
    files = (ROOT / "deploy" / "sidecar.yaml", ROOT / "deploy" / "podmonitor.yaml")
    return [document for path in files for document in yaml.safe_load_all(path.read_text())]


def of(documents: list[Document], kind: str) -> list[Document]:
    return [document for document in documents if document["kind"] == kind]


EVERY = [
    pytest.param(document, id=f"{where}-{document['kind']}-{document['metadata']['name']}")
    for where, documents in (("all", rendered(ALL)), ("default", rendered({})), ("plain", plain()))
    for document in documents
]


@pytest.mark.parametrize("values", [{}, ALL], ids=["default", "all"])
def test_helm_finds_nothing_wrong(values: Document) -> None:
    report = helm_chart.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize(
    "values",
    [
        {"replicas": 0},
        {"image": {"pullPolicy": "Sometimes"}},
        {"config": {"listen": "0.0.0.0:1"}},
        {"config": {"admin_token": "written-in-a-values-file"}},
        {"replica": 2},
        {"networkPolicy": {"egressPorts": ["https"]}},
        {"replicas": 2, "config": {"runs": {"budget_usd": 2}}},
        {"monitoring": {"rules": {"enable": True}}},
        {"monitoring": {"serviceMonitor": {"interval": "15"}}},
    ],
)
def test_wrong_values_are_refused(values: Document) -> None:
    with pytest.raises(helm.HelmError):
        rendered(values)


@pytest.mark.parametrize("document", EVERY)
def test_kubernetes_knows_every_field(document: Document) -> None:
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        assert set(document) == {"apiVersion", "kind", "metadata", "spec"}
        return
    kubernetes_validate.validate(document, VERSION, strict=True)


def pods() -> list[tuple[str, Document]]:
    both = (("chart", rendered(ALL)), ("plain", plain()))
    return [
        (where, document["spec"]["template"]["spec"])
        for where, documents in both
        for document in documents
        if document["kind"] in ("StatefulSet", "Deployment")
    ]


@pytest.mark.parametrize(("where", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_pods_may_do_no_more_than_they_must(where: str, pod: Document) -> None:
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] > load(None, {"HOME": "/h"}).limits.drain_seconds
    volumes = {volume["name"] for volume in pod["volumes"]} | ({"state"} if where == "chart" else set())
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"]
        assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    (gateway,) = (one for one in (*pod["containers"], *pod.get("initContainers", ())) if one["name"] == "gateway")
    assert {mount["mountPath"] for mount in gateway["volumeMounts"]} == {"/var/lib/tollgate", "/etc/tollgate", "/tmp"}
    ports = {port["name"]: port["containerPort"] for port in gateway["ports"]}
    assert ports["admin"] == 8788
    for probe, paths in (
        ("startup", ("/healthz", "/readyz")),
        ("liveness", ("/healthz",)),
        ("readiness", ("/readyz",)),
    ):
        asked = gateway[f"{probe}Probe"]["httpGet"]
        assert asked["port"] == "admin"
        assert asked["path"] in paths


@pytest.mark.parametrize(("documents", "open_"), [(rendered(ALL), True), (plain(), False)], ids=["chart", "plain"])
def test_the_gateway_would_start_with_what_it_is_given(documents: list[Document], open_: bool, tmp_path: Path) -> None:
    (text,) = (
        document["data"]["tollgate.yaml"]
        for document in of(documents, "ConfigMap")
        if "tollgate.yaml" in document["data"]
    )
    (tmp_path / "tollgate.yaml").write_text(text)
    given = {"HOME": "/h", "TOLLGATE_ADMIN": "0.0.0.0:8788", "TOLLGATE_ADMIN_TOKEN": "0123456789abcdef0123"}
    given |= {"TOLLGATE_LISTEN": "0.0.0.0:8787", ALLOW_OPEN: "1"} if open_ else {"TOLLGATE_LISTEN": "127.0.0.1:8787"}
    config = load(tmp_path / "tollgate.yaml", given)
    assert parse_address(config.listen).loopback is not open_


def test_every_name_that_is_referred_to_is_there() -> None:
    documents = rendered(ALL)
    secrets = {document["metadata"]["name"] for document in of(documents, "Secret")} | {"provider-keys"}
    (pod,) = (document["spec"]["template"]["spec"] for document in of(documents, "StatefulSet"))
    (gateway,) = pod["containers"]
    assert gateway["env"][1]["valueFrom"]["secretKeyRef"]["name"] in secrets
    assert gateway["envFrom"][0]["secretRef"]["name"] in secrets
    labels = of(documents, "StatefulSet")[0]["spec"]["template"]["metadata"]["labels"]
    for kind, path in (("Service", "selector"), ("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
        (document,) = of(documents, kind)
        selector = document["spec"][path]
        assert (selector.get("matchLabels") or selector).items() <= labels.items()
    (service,) = of(documents, "Service")
    (monitor,) = of(documents, "ServiceMonitor")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"]["name"] in secrets
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "tollgate", "the job that alerts look for"


def test_the_longest_name_of_a_release_leaves_room_for_what_kubernetes_adds() -> None:
    (made,) = of(rendered({}, release="r" * 53), "StatefulSet")
    assert len(f"{made['metadata']['name']}-0123456789") <= 63, "the label controller-revision-hash of its pods"


def test_replicas_share_limits_through_redis() -> None:
    limits = {"budgets": [{"scope": "global", "usd": 500, "per": "month"}]}
    rendered({"replicas": 2, "config": {**limits, "spending": {"redis": "redis://redis:6379"}}})
    rendered({"replicas": 2, "config": {"limits": {"drain_seconds": 60}}})


def test_no_port_of_providers_means_none_not_all() -> None:
    (policy,) = of(rendered({"networkPolicy": {"egressPorts": []}}), "NetworkPolicy")
    assert [{port["port"] for port in rule["ports"]} for rule in policy["spec"]["egress"]] == [{53}]


def test_images_are_pulled_with_the_secrets_that_are_named() -> None:
    (made,) = of(rendered(ALL), "StatefulSet")
    assert made["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "registry-a"}, {"name": "registry-b"}]


def test_rules_and_dashboards_are_those_of_the_repository() -> None:
    documents = rendered(ALL)
    rules = {
        document["metadata"]["name"].rpartition("-")[2]: document["spec"]
        for document in of(documents, "PrometheusRule")
    }
    for path in sorted((ROOT / "alerts").glob("*.yaml")):
        text = path.read_text().replace("http://127.0.0.1:9090/user/RUNBOOK.md", "https://wiki/runbook")
        assert rules.pop(path.stem) == yaml.safe_load(text.replace("http://127.0.0.1:3000", "https://grafana"))
    assert rules == {}
    shown = {
        name: text
        for document in of(documents, "ConfigMap")
        for name, text in document["data"].items()
        if "json" in name
    }
    files = {f"tollgate-{path.name}": path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
    assert {name: text.strip() for name, text in shown.items()} == {name: text.strip() for name, text in files.items()}


def test_the_usual_goals_may_give_way_to_those_of_the_configuration() -> None:
    """Under the same names two sets of them would write the same series."""
    kept = rendered({"monitoring": {"rules": {"enabled": True, "slo": False}}})
    names = {document["metadata"]["name"].rpartition("-")[2] for document in of(kept, "PrometheusRule")}
    assert names == {path.stem for path in (ROOT / "alerts").glob("*.yaml")} - {"slo"}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules_of_the_chart(tmp_path: Path) -> None:
    for document in of(rendered(ALL), "PrometheusRule"):
        path = tmp_path / f"{document['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(document["spec"]))
        done = subprocess.run(
            ["promtool", "check", "rules", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_off_is_not_there() -> None:
    kinds = {document["kind"] for document in rendered({})}
    assert kinds == {"StatefulSet", "Service", "ConfigMap", "Secret", "PodDisruptionBudget", "NetworkPolicy"}
    bare = rendered(
        {
            "podDisruptionBudget": {"enabled": False},
            "networkPolicy": {"enabled": False},
            "adminToken": {"existingSecret": "mine"},
            "persistence": {"enabled": False},
        }
    )
    assert {document["kind"] for document in bare} == {"StatefulSet", "Service", "ConfigMap"}
    (workload,) = of(bare, "StatefulSet")
    assert "volumeClaimTemplates" not in workload["spec"]
