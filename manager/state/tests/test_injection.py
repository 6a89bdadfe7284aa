"""Pods in, pods with the agent out."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from manager.state.injection import NotInjectable, Wish, agent_config, inject, injected_containers
from tunnel.agentconfig import ANNOTATION, ContainerPort, ManagerAddress, Variable, Workload

ROOT = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

POD: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "generateName": "echo-7d9c-",
        "namespace": "demo",
        "labels": {"app": "echo"},
        "annotations": {
            "kubectl.kubernetes.io/default-container": "app",
            "container.apparmor.security.beta.kubernetes.io/app": "runtime/default",
            "container.apparmor.security.beta.kubernetes.io/proxy": "unconfined",
        },
        "ownerReferences": [{"kind": "ReplicaSet", "name": "echo-7d9c", "controller": True}],
    },
    "spec": {
        "initContainers": [
            {"name": "migrate", "image": "migrate:1"},
            {"name": "mesh", "image": "mesh:1", "restartPolicy": "Always", "ports": [{"containerPort": 9901}]},
        ],
        "containers": [
            {
                "name": "proxy",
                "image": "proxy:1",
                "ports": [{"containerPort": 9900, "name": "admin"}],
                "env": [
                    {
                        "name": "APP_MEMORY",
                        "valueFrom": {"resourceFieldRef": {"containerName": "app", "resource": "limits.memory"}},
                    }
                ],
            },
            {
                "name": "app",
                "image": "echo:1",
                "imagePullPolicy": "Always",
                "command": ["/echo"],
                "args": ["--port=$(PORT)"],
                "workingDir": "/srv",
                "stdin": True,
                "ports": [
                    {"containerPort": 8080, "name": "http", "protocol": "TCP"},
                    {"containerPort": 5353, "protocol": "UDP"},
                    {"containerPort": 3868, "protocol": "SCTP"},
                ],
                "env": [
                    {"name": "PORT", "value": "8080"},
                    {"name": "URL", "value": "http://$(HOST):$(PORT)/?price=5$$"},
                    {"name": "EMPTY"},
                    {
                        "name": "PASSWORD",
                        "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}},
                    },
                    {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    {
                        "name": "LIMIT",
                        "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
                    },
                    {
                        "name": "ALLOCATABLE",
                        "valueFrom": {
                            "resourceFieldRef": {
                                "containerName": "app",
                                "resource": "requests.ephemeral-storage",
                            }
                        },
                    },
                ],
                "envFrom": [
                    {"configMapRef": {"name": "settings"}},
                    {"prefix": "DB_", "secretRef": {"name": "db"}},
                ],
                "resources": {
                    "requests": {"cpu": "100m", "memory": "32Mi"},
                    "limits": {"memory": "64Mi", "cpu": "1"},
                },
                "securityContext": {
                    "runAsUser": 1000,
                    "runAsGroup": 2000,
                    "privileged": True,
                    "capabilities": {"add": ["SYS_PTRACE"]},
                    "seccompProfile": {"type": "Localhost", "localhostProfile": "tight.json"},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [
                    {"name": "data", "mountPath": "/var/lib/echo", "subPath": "a"},
                    {"name": "data", "mountPath": "/../../usr", "mountPropagation": "Bidirectional"},
                    {"name": "logs", "mountPath": "/log", "subPathExpr": "x/$(POD)/$(FROM_MAP)"},
                    {"name": "token", "mountPath": "/var/run/secrets/x", "readOnly": True},
                ],
                "livenessProbe": {"httpGet": {"port": 8080}},
                "readinessProbe": {"httpGet": {"port": "http"}},
                "startupProbe": {"exec": {"command": ["true"]}},
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "30"]}}},
            },
            {"name": "log", "image": "log:1", "ports": [{"containerPort": 80}]},
        ],
        "volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {
                "name": "info",
                "projected": {
                    "sources": [
                        {
                            "downwardAPI": {
                                "items": [
                                    {
                                        "path": "cpu",
                                        "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu"},
                                    }
                                ]
                            }
                        }
                    ]
                },
            },
        ],
        "securityContext": {"fsGroup": 3000},
        "automountServiceAccountToken": False,
    },
}


def wish(*containers: str, **changes: Any) -> Wish:
    values: dict[str, Any] = {
        "image": "tpctl/agent:1",
        "pull_policy": "IfNotPresent",
        "root_pem": ROOT,
        "manager": ManagerAddress("tpctl-system", "traffic-manager.tpctl-system.svc", 8444),
        "workload": Workload("Deployment", "echo"),
        "containers": frozenset(containers),
        **changes,
    }
    return Wish(**values)


def agent(pod: dict[str, Any]) -> dict[str, Any]:
    return next(c for c in pod["spec"]["containers"] if c["name"] == "traffic-agent")


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {entry["name"]: entry.get("value", entry.get("valueFrom")) for entry in agent(pod)["env"]}


def simple(**container: Any) -> dict[str, Any]:
    return {"metadata": {}, "spec": {"containers": [{"name": "app", "image": "x", **container}]}}


def test_takes_the_place_and_nothing_else_changes() -> None:
    before = copy.deepcopy(POD)
    after = inject(POD, wish("app"))
    assert before == POD
    assert [c["name"] for c in after["spec"]["containers"]] == ["proxy", "traffic-agent", "log"]
    assert after["spec"]["initContainers"] == POD["spec"]["initContainers"]
    assert after["spec"]["containers"][2] == POD["spec"]["containers"][2]
    assert after["spec"]["securityContext"] == {"fsGroup": 3000}
    assert after["spec"]["automountServiceAccountToken"] is False
    assert after["metadata"]["labels"] == POD["metadata"]["labels"]
    assert set(after["metadata"]["annotations"]) == {
        "kubectl.kubernetes.io/default-container",
        "container.apparmor.security.beta.kubernetes.io/proxy",
        ANNOTATION,
    }


def test_nothing_of_the_apps_process_is_left() -> None:
    assert set(agent(inject(POD, wish("app")))) == {
        "name",
        "image",
        "imagePullPolicy",
        "env",
        "envFrom",
        "ports",
        "resources",
        "securityContext",
        "readinessProbe",
        "terminationMessagePolicy",
        "volumeMounts",
    }


def test_configuration() -> None:
    config = agent_config(inject(POD, wish("app")))
    assert config is not None
    assert (config.agent_port, config.ready_port) == (9902, 9903)  # 9900 and 9901 are declared
    assert agent(inject(POD, wish("app")))["readinessProbe"]["tcpSocket"] == {"port": 9903}
    assert config.workload == Workload("Deployment", "echo")
    (app,) = config.replaced
    assert (app.name, app.env_prefix, app.mount_point) == ("app", "_TEL_APP_A_", "/tel_app_mounts/app")
    assert app.ports == (ContainerPort(8080, "TCP", "http"), ContainerPort(5353, "UDP"))
    assert app.variables[:4] == (
        Variable("PORT", literal=True),
        Variable("URL", literal=True),
        Variable("EMPTY", literal=True),
        Variable("PASSWORD", literal=False),
    )
    assert "session" not in config.to_json().lower()


def test_variables() -> None:
    variables = environment(inject(POD, wish("app")))
    assert variables["_TEL_APP_A_URL"] == "http://$$(HOST):$$(PORT)/?price=5$$$$"
    assert variables["_TEL_APP_A_EMPTY"] == ""
    assert variables["_TEL_APP_A_PASSWORD"] == {"secretKeyRef": {"name": "db", "key": "password"}}
    assert variables["_TEL_APP_A_LIMIT"] == "64"  # the app's 64Mi, not the agent's raised limit
    assert variables["_TEL_APP_A_ALLOCATABLE"] == {"resourceFieldRef": {"resource": "requests.ephemeral-storage"}}
    assert variables["MANAGER_ROOT"] == ROOT
    assert variables["AGENT_CONFIG"]["fieldRef"]["fieldPath"] == f"metadata.annotations['{ANNOTATION}']"
    own = {name for name in variables if not name.startswith("_TEL_")}
    assert own == {"AGENT_CONFIG", "MANAGER_ROOT", "POD_NAME", "POD_UID", "POD_NAMESPACE", "POD_IP"}
    assert agent(inject(POD, wish("app")))["envFrom"] == [
        {"configMapRef": {"name": "settings"}, "prefix": "_TEL_FROM_A_"},
        {"secretRef": {"name": "db"}, "prefix": "_TEL_FROM_A_DB_"},
    ]


def test_of_two_entries_of_one_name_the_later_counts() -> None:
    pod = inject(simple(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]), wish("app"))
    assert [e for e in agent(pod)["env"] if e["name"].startswith("_TEL_")] == [{"name": "_TEL_APP_A_A", "value": "2"}]


def test_volumes() -> None:
    pod = inject(POD, wish("app"))
    token, *mounts = agent(pod)["volumeMounts"]
    assert token["readOnly"]
    assert mounts == [
        {"name": "data", "mountPath": "/tel_app_mounts/app/var/lib/echo", "subPath": "a"},
        {"name": "data", "mountPath": "/tel_app_mounts/app/usr"},
        {
            "name": "logs",
            "mountPath": "/tel_app_mounts/app/log",
            "subPathExpr": "x/$(_TEL_APP_A_POD)/$(_TEL_FROM_A_FROM_MAP)",
        },
        {"name": "token", "mountPath": "/tel_app_mounts/app/var/run/secrets/x", "readOnly": True},
    ]
    volume = pod["spec"]["volumes"][-1]
    (source,) = volume["projected"]["sources"]
    assert source["serviceAccountToken"]["audience"] == "traffic-manager"
    users = [
        container["name"]
        for container in [*pod["spec"]["containers"], *pod["spec"]["initContainers"]]
        if any(mount["name"] == volume["name"] for mount in container.get("volumeMounts", []))
    ]
    assert users == ["traffic-agent"]


def test_privileges_are_the_apps_user_and_no_more() -> None:
    assert agent(inject(POD, wish("app")))["securityContext"] == {
        "runAsUser": 1000,
        "runAsGroup": 2000,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
    }


@pytest.mark.parametrize(
    ("context", "confined"),
    [
        ({}, {}),
        ({"readOnlyRootFilesystem": False, "seccompProfile": {"type": "Unconfined"}}, {}),
        (
            {"allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]}},
            {"runAsNonRoot": True},
        ),
    ],
)
def test_confined_whatever_the_app_says(context: dict[str, Any], confined: dict[str, Any]) -> None:
    """As the Pod Security Standard `restricted` has it, where the app's pod does."""
    assert agent(inject(simple(securityContext=context), wish("app")))["securityContext"] == {
        **confined,
        "readOnlyRootFilesystem": True,
        "seccompProfile": {"type": "RuntimeDefault"},
        "capabilities": {"drop": ["ALL"]},
        "allowPrivilegeEscalation": False,
    }


@pytest.mark.parametrize(
    ("context", "pod_context", "user"),
    [({}, {}, 0), ({"runAsUser": 5}, {}, 5), ({}, {"runAsUser": 7}, None), ({"runAsNonRoot": True}, {}, None)],
)
def test_low_ports(context: dict[str, Any], pod_context: dict[str, Any], user: int | None) -> None:
    pod = simple(ports=[{"containerPort": 80}], securityContext=context)
    pod["spec"]["securityContext"] = pod_context
    given = agent(inject(pod, wish("app")))["securityContext"]
    assert given["capabilities"] == {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}
    assert given.get("runAsUser") == user


def test_ports_that_only_the_engagement_names() -> None:
    pod = inject(simple(), wish("app", ports=frozenset({443, 9900})))
    assert "add" in agent(pod)["securityContext"]["capabilities"]
    config = agent_config(pod)
    assert config is not None
    assert config.agent_port == 9901


def test_resources() -> None:
    assert agent(inject(POD, wish("app")))["resources"] == {
        "requests": {"cpu": "100m", "memory": "32Mi"},
        "limits": {"memory": "128Mi", "cpu": "1"},
    }
    chart = {"requests": {"cpu": "10m"}}
    assert agent(inject(POD, wish("app", resources=chart)))["resources"] == chart
    assert "resources" not in agent(inject(simple(), wish("app")))
    bounded = copy.deepcopy(POD)
    bounded["spec"]["resources"] = {"limits": {"memory": "64Mi"}}
    assert agent(inject(bounded, wish("app")))["resources"]["limits"]["memory"] == "64Mi"
    with pytest.raises(NotInjectable, match="quantity"):
        inject(
            simple(
                resources={"limits": {"memory": "much"}},
            ),
            wish("app"),
        )


def test_references_to_its_resources_lead_to_the_agent() -> None:
    pod = inject(POD, wish("app"))
    assert pod["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"] == {
        "containerName": "traffic-agent",
        "resource": "limits.memory",
    }
    (source,) = pod["spec"]["volumes"][1]["projected"]["sources"]
    assert source["downwardAPI"]["items"][0]["resourceFieldRef"]["containerName"] == "traffic-agent"


def test_two_containers_one_agent() -> None:
    pod = copy.deepcopy(POD)
    pod["spec"]["containers"][2]["env"] = [{"name": "PORT", "value": "80"}]
    pod["spec"]["containers"][2]["resources"] = {
        "requests": {"cpu": "50m", "memory": "1Gi"},
        "limits": {"memory": "1Gi"},
    }
    after = inject(pod, wish("app", "log"))
    assert [c["name"] for c in after["spec"]["containers"]] == ["proxy", "traffic-agent"]
    assert injected_containers(after) == {"app", "log"}
    variables = environment(after)
    assert (variables["_TEL_APP_A_PORT"], variables["_TEL_APP_B_PORT"]) == ("8080", "80")
    assert [port["containerPort"] for port in agent(after)["ports"]] == [8080, 5353, 3868, 80]
    assert agent(after)["resources"] == {
        "requests": {"cpu": "150m", "memory": "1107296256"},
        "limits": {"memory": "1140850688"},
    }


def _two(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    pod = simple(ports=first)
    pod["spec"]["containers"].append({"name": "log", "image": "y", "ports": second})
    return pod


def test_two_containers_that_declare_the_same() -> None:
    pod = _two(
        [{"containerPort": 80, "name": "http"}, {"containerPort": 53, "protocol": "UDP"}],
        [
            {"containerPort": 81, "name": "http", "protocol": "TCP"},
            {"containerPort": 53},
            {"containerPort": 80},
            {"containerPort": 80, "name": "web"},
        ],
    )
    assert agent(inject(pod, wish("app", "log")))["ports"] == [
        {"containerPort": 80, "name": "http"},
        {"containerPort": 53, "protocol": "UDP"},
        {"containerPort": 81, "protocol": "TCP"},
        {"containerPort": 53},
        {"containerPort": 80, "name": "web"},
    ]
    udp = _two([{"containerPort": 80, "name": "http"}], [{"containerPort": 443, "name": "http", "protocol": "UDP"}])
    with pytest.raises(NotInjectable, match="two ports http, of different protocols"):
        inject(udp, wish("app", "log"))


def test_again_changes_nothing() -> None:
    once = inject(POD, wish("app"))
    assert inject(once, wish("app")) == once
    # What another webhook adds in between stays.
    once["spec"]["containers"].append({"name": "istio-proxy", "image": "istio"})
    assert inject(once, wish("app")) == once
    with pytest.raises(NotInjectable, match="in place of app already, not of app, log"):
        inject(once, wish("app", "log"))


def test_no_container_wished_for() -> None:
    assert inject(POD, wish()) == POD


def test_an_annotation_copied_from_another_pod_says_nothing() -> None:
    injected = inject(POD, wish("app"))
    copied = copy.deepcopy(POD)
    copied["metadata"]["annotations"][ANNOTATION] = injected["metadata"]["annotations"][ANNOTATION]
    assert injected_containers(copied) == frozenset()
    assert injected_containers(inject(copied, wish("log"))) == {"log"}


@pytest.mark.parametrize("annotation", ["", "{}", "null", json.dumps({"version": 99})])
def test_an_unreadable_annotation_says_nothing(annotation: str) -> None:
    pod = inject(POD, wish("app"))
    pod["metadata"]["annotations"][ANNOTATION] = annotation
    assert injected_containers(pod) == frozenset()


@pytest.mark.parametrize("pod", [{}, {"metadata": {"annotations": None}}, simple(), POD])
def test_pods_without_agent(pod: dict[str, Any]) -> None:
    assert injected_containers(pod) == frozenset()


def test_what_an_agent_could_not_be_told_is_refused() -> None:
    many = [{"name": f"A_VARIABLE_WITH_A_LONG_NAME_{number}", "value": ""} for number in range(2000)]
    with pytest.raises(NotInjectable, match="more variables"):
        inject(simple(env=many), wish("app"))


@pytest.mark.parametrize(
    ("change", "container", "reason"),
    [
        ({"hostNetwork": True}, "app", "hostNetwork"),
        ({"os": {"name": "windows"}}, "app", "Windows"),
        ({}, "mesh", "native sidecar"),
        ({}, "migrate", "init container"),
        ({}, "nobody", "no container nobody; it has app, log, proxy"),
        ({"volumes": [{"name": "traffic-agent-token"}]}, "app", "volume traffic-agent-token"),
        ({"containers": [{"name": "app"}, {"name": "traffic-agent"}]}, "app", "container traffic-agent"),
    ],
)
def test_refusals(change: dict[str, Any], container: str, reason: str) -> None:
    pod = copy.deepcopy(POD)
    pod["spec"].update(change)
    with pytest.raises(NotInjectable) as caught:
        inject(pod, wish(container))
    assert reason in str(caught.value)
    assert str(caught.value).endswith(".")
