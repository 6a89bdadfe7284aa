"""The chart through real Helm: what it renders, and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from manager.config import Config, from_environment
from tunnel.version import VERSION

CHART = Path(__file__).parent.parent / "tpctl"
HELM = Path(sys.prefix) / "bin" / "helm"

Document = Mapping[str, Any]


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=30)


def _render(*settings: str, namespace: str = "tpctl-system") -> list[Document]:
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    done = _helm("template", "traffic-manager", str(CHART), "--namespace", namespace, *arguments)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.fixture(scope="module")
def rendered() -> list[Document]:
    return _render()


def _one(documents: list[Document], kind: str, name: str = "") -> Document:
    found = [each for each in documents if each["kind"] == kind and name in ("", each["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} of {kind} {name}"
    return found[0]


def test_lint_finds_nothing() -> None:
    done = _helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_chart_has_the_projects_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_manager_runs_without_privilege(rendered: list[Document]) -> None:
    pod = _one(rendered, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == f"tpctl/manager:{VERSION}"
    assert pod["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _config(documents: list[Document]) -> Config:
    """What the manager makes of the chart's Deployment."""
    (container,) = _one(documents, "Deployment")["spec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    return from_environment({**environment, "POD_NAME": "p", "POD_UID": "u", "POD_NAMESPACE": "n"})


def test_the_manager_understands_what_the_chart_tells_it() -> None:
    documents = _render("leaseSeconds=15", "deny={10.0.0.0/8,fd00::/8}", "agent.image.registry=example.org/x/")
    config = _config(documents)
    assert config.lease_seconds == 15
    assert [str(network) for network in config.deny] == ["10.0.0.0/8", "fd00::/8"]
    assert config.agent.image == f"example.org/x/tpctl/agent:{VERSION}"
    assert config.policy == _one(documents, "ValidatingAdmissionPolicy", config.policy)["metadata"]["name"]
    assert config.webhook_configuration == _one(documents, "MutatingWebhookConfiguration")["metadata"]["name"]


def test_secrets_are_read_by_name_only(rendered: list[Document]) -> None:
    for role in (each for each in rendered if each["kind"] in ("Role", "ClusterRole")):
        for rule in role["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"] == ["tpctl-root"]
                assert set(rule["verbs"]) == {"get", "update"}


def test_nobody_may_connect_unless_named(rendered: list[Document]) -> None:
    assert "traffic-manager-connect" not in {
        each["roleRef"]["name"] for each in rendered if each["kind"] == "RoleBinding"
    }
    named = _render("clientRbac.subjects[0].kind=Group", "clientRbac.subjects[0].name=devs")
    binding = _one(named, "RoleBinding", "traffic-manager-connect")
    assert binding["subjects"] == [{"kind": "Group", "name": "devs", "apiGroup": "rbac.authorization.k8s.io"}]


def test_releases_in_two_namespaces_share_no_name_in_the_clusters_scope(rendered: list[Document]) -> None:
    def names(documents: list[Document]) -> set[tuple[str, str]]:
        return {(each["kind"], each["metadata"]["name"]) for each in documents if "namespace" not in each["metadata"]}

    assert names(rendered)
    assert not names(rendered) & names(_render(namespace="other"))


def test_the_webhook_leaves_the_cluster_and_itself_alone(rendered: list[Document]) -> None:
    (webhook,) = _one(rendered, "MutatingWebhookConfiguration")["webhooks"]
    assert webhook["failurePolicy"] == "Ignore"
    (expression,) = webhook["namespaceSelector"]["matchExpressions"]
    assert expression["operator"] == "NotIn"
    assert {"kube-system", "tpctl-system"} <= set(expression["values"])
    assert _config(rendered).untouched_namespaces == tuple(expression["values"])


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("leaseSecond=5", "leaseSecond"),
        ("image.tags=5", "tags"),
        ("leaseSeconds=1", "leaseSeconds"),
        ("replicaCount=2", "replicaCount"),
        ("logLevel=loud", "logLevel"),
        ("deny={everything}", "deny"),
        ("clientRbac.subjects[0].kind=Everybody", "kind"),
    ],
)
def test_a_wrong_value_is_refused_by_name(setting: str, named: str) -> None:
    done = _helm("template", "traffic-manager", str(CHART), "--set", setting)
    assert done.returncode != 0
    assert named in done.stderr


def test_the_custom_resources_answer_who_has_what() -> None:
    for kind in ("sessions", "engagements"):
        crd = yaml.safe_load((CHART / "crds" / f"{kind}.yaml").read_text())
        (version,) = crd["spec"]["versions"]
        assert version["subresources"] == {"status": {}}
        columns = {column["name"] for column in version["additionalPrinterColumns"]}
        assert {"User", "Phase", "Since"} <= columns
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        assert spec["x-kubernetes-validations"][0]["rule"] == "self == oldSelf"
        assert json.dumps(version["selectableFields"]) == '[{"jsonPath": ".spec.user"}]'


def test_an_engagement_names_only_what_can_be_a_name() -> None:
    crd = yaml.safe_load((CHART / "crds" / "engagements.yaml").read_text())
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    named = [spec["workload"]["properties"]["name"], spec["container"], *spec["session"]["properties"].values()]
    for schema in named:
        assert re.search(schema["pattern"], "web-1")
        for bad in ("", ".", "..", "web/scale", "?x", "Web", "-web", "web\n"):
            assert not re.search(schema["pattern"].replace("$", r"\Z"), bad)  # Go's `$` is the very end
