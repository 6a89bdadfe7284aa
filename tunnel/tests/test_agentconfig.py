"""The agent configuration survives the annotation, and what is wrong in it is named."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tunnel.agentconfig import (
    MAX_LENGTH,
    AgentConfig,
    BadAgentConfig,
    ContainerPort,
    ManagerAddress,
    ReplacedContainer,
    Variable,
    Workload,
    parse,
)

CONFIG = AgentConfig(
    manager=ManagerAddress("tpctl-system", "traffic-manager.tpctl-system.svc", 8444),
    workload=Workload("Deployment", "echo"),
    agent_port=9900,
    ready_port=9901,
    replaced=(
        ReplacedContainer(
            name="app",
            env_prefix="_TEL_APP_A_",
            from_prefix="_TEL_FROM_A_",
            mount_point="/tel_app_mounts/app",
            ports=(ContainerPort(8080, "TCP", "http"), ContainerPort(53, "UDP")),
            variables=(Variable("GREETING", literal=True), Variable("WHO", literal=False)),
        ),
        ReplacedContainer("log", "_TEL_APP_B_", "_TEL_FROM_B_", "/tel_app_mounts/log"),
    ),
)


def document() -> Any:
    return json.loads(CONFIG.to_json())


def test_round_trip() -> None:
    assert parse(CONFIG.to_json()) == CONFIG


def test_fields_of_a_later_release_are_left_out() -> None:
    later = document()
    later["someday"] = {"x": 1}
    later["replaced"][0]["ports"][0]["appProtocol"] = "h2c"
    assert parse(json.dumps(later)) == CONFIG


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (["version"], 2, "layout 2"),
        (["version"], True, "version"),
        (["manager"], None, "manager must be an object"),
        (["manager", "port"], 0, "manager.port"),
        (["manager", "address"], "", "manager.address"),
        (["workload", "kind"], 7, "workload.kind"),
        (["agentPort"], 65536, "agentPort"),
        (["readyPort"], None, "readyPort"),
        (["replaced"], {}, "replaced must be a list"),
        (["replaced", 0, "name"], None, "replaced[0].name"),
        (["replaced", 1, "name"], "app", "same name"),
        (["replaced", 1, "fromPrefix"], "_TEL_APP_A_", "begin alike"),
        (["replaced", 1, "fromPrefix"], "_TEL_APP", "begin alike"),
        (["replaced"], [None] * 65, "more than 64"),
        (["replaced", 0, "ports", 1, "protocol"], "SCTP", "ports[1].protocol"),
        (["replaced", 0, "ports", 0, "containerPort"], "80", "ports[0].containerPort"),
        (["replaced", 0, "ports", 0, "name"], 80, "ports[0].name"),
        (["replaced", 0, "variables", 0, "name"], "", "variables[0].name"),
        (["replaced", 0, "variables", 1, "literal"], 1, "variables[1].literal"),
    ],
)
def test_what_is_wrong_is_named(path: list[str | int], value: object, named: str) -> None:
    broken = document()
    place = broken
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(BadAgentConfig) as caught:
        parse(json.dumps(broken))
    text = str(caught.value)
    assert named in text
    assert text.endswith(".")
    assert "\n" not in text


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 60_000, CONFIG.to_json() + " " * MAX_LENGTH])
def test_not_a_document(text: str) -> None:
    with pytest.raises(BadAgentConfig):
        parse(text)


def test_what_a_stranger_writes_costs_little() -> None:
    """As many containers as an annotation has room for, whose prefixes all differ."""
    many = document()
    many["replaced"] = [
        {**many["replaced"][1], "name": f"c{n}", "envPrefix": f"E{n}_", "fromPrefix": f"F{n}_"} for n in range(1600)
    ]
    text = json.dumps(many)
    assert MAX_LENGTH < len(text) < 1 << 18
    began = time.process_time()
    with pytest.raises(BadAgentConfig):
        parse(text)
    assert time.process_time() - began < 0.2
