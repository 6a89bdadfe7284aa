"""The traffic-agent's configuration: the JSON document in the pod annotation `telepresence.io/agent-config`.

The manager's webhook writes it, and nothing else does; the agent reads it through the downward API. It holds what
shapes the pod, never who is engaged at the moment: that reaches the agent over gRPC.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

ANNOTATION = "telepresence.io/agent-config"
AGENT_CONTAINER = "traffic-agent"
"""Name of the agent's container in the pod."""

SCHEMA = 1
"""Number of the document's layout; a reader refuses one it does not know."""

ENV_CONFIG = "AGENT_CONFIG"
ENV_ROOT = "MANAGER_ROOT"
"""The manager's root certificate, PEM."""
ENV_POD_NAME = "POD_NAME"
ENV_POD_UID = "POD_UID"
ENV_POD_NAMESPACE = "POD_NAMESPACE"
ENV_POD_ADDRESS = "POD_IP"

TOKEN_AUDIENCE = "traffic-manager"
TOKEN_DIRECTORY = "/var/run/secrets/tpctl.io/traffic-manager"
TOKEN_FILE = f"{TOKEN_DIRECTORY}/token"
APP_MOUNTS = "/tel_app_mounts"
"""Every volume of a replaced container is found below `APP_MOUNTS/CONTAINER`."""

PROTOCOLS = frozenset({"TCP", "UDP"})

MAX_LENGTH = 64 << 10
"""Characters of the document. The agent gets it as one variable, of which the kernel takes 128 KiB; and anybody who may
create a pod may write one, which others then read."""
MAX_REPLACED = 64
"""Containers whose place one agent takes."""


class BadAgentConfig(ValueError):
    """The document cannot be used; the text is one sentence that names the place."""


@dataclass(frozen=True, slots=True)
class ManagerAddress:
    """Where the agent finds its traffic-manager's agents port."""

    namespace: str
    address: str
    port: int


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that the replaced container declared."""

    port: int
    protocol: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """An entry of the replaced container's `env`."""

    name: str
    literal: bool
    """Given as `value`: in these, and only these, Kubernetes resolves `$(VAR)`. The agent gets them unresolved."""


@dataclass(frozen=True, slots=True)
class ReplacedContainer:
    """A container whose place the agent has taken."""

    name: str
    env_prefix: str
    """In front of the name of every variable that the container's `env` gives, in the agent's environment."""
    from_prefix: str
    """The same for the variables that its `envFrom` gives."""
    mount_point: str
    """Directory below which its volumes are mounted."""
    ports: tuple[ContainerPort, ...] = ()
    variables: tuple[Variable, ...] = ()
    """The container's `env` in its order, which decides what a `$(VAR)` may refer to."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The workload that owns the pod."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """The whole document."""

    manager: ManagerAddress
    workload: Workload
    agent_port: int
    """Where the agent serves Tunnel.Connect and Agent."""
    ready_port: int
    """For the readiness probe: a port that is open exactly while the agent serves somebody."""
    replaced: tuple[ReplacedContainer, ...]

    def to_json(self) -> str:
        """Compact JSON with sorted keys: equal configurations are equal texts."""
        document = {
            "version": SCHEMA,
            "manager": {
                "namespace": self.manager.namespace,
                "address": self.manager.address,
                "port": self.manager.port,
            },
            "workload": {"kind": self.workload.kind, "name": self.workload.name},
            "agentPort": self.agent_port,
            "readyPort": self.ready_port,
            "replaced": [
                {
                    "name": container.name,
                    "envPrefix": container.env_prefix,
                    "fromPrefix": container.from_prefix,
                    "mountPoint": container.mount_point,
                    "ports": [
                        {"containerPort": port.port, "protocol": port.protocol, "name": port.name}
                        for port in container.ports
                    ],
                    "variables": [
                        {"name": variable.name, "literal": variable.literal} for variable in container.variables
                    ],
                }
                for container in self.replaced
            ],
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True)


def parse(text: str) -> AgentConfig:
    """Read the document. Fields this release does not know are left out; everything it knows must be right.

    Raises BadAgentConfig, at once for a document beyond MAX_LENGTH or MAX_REPLACED.
    """
    if len(text) > MAX_LENGTH:
        raise BadAgentConfig(f"The agent configuration has {len(text)} characters; {MAX_LENGTH} are allowed.")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadAgentConfig(f"The agent configuration is not JSON: {error}.") from None
    top = _object(document, "the document")
    version = _number(top, "version", "the document", 1, 2**31)
    if version != SCHEMA:
        raise BadAgentConfig(f"The agent configuration has layout {version}, this release reads only {SCHEMA}.")
    manager = _object(top.get("manager"), "manager")
    workload = _object(top.get("workload"), "workload")
    config = AgentConfig(
        manager=ManagerAddress(
            namespace=_text(manager, "namespace", "manager"),
            address=_text(manager, "address", "manager"),
            port=_number(manager, "port", "manager", 1, 65535),
        ),
        workload=Workload(kind=_text(workload, "kind", "workload"), name=_text(workload, "name", "workload")),
        agent_port=_number(top, "agentPort", "the document", 1, 65535),
        ready_port=_number(top, "readyPort", "the document", 1, 65535),
        replaced=_items(top, "replaced", "the document", _replaced, MAX_REPLACED),
    )
    names = [container.name for container in config.replaced]
    if len(set(names)) != len(names):
        raise BadAgentConfig("Two replaced containers of the agent configuration have the same name.")
    # What lies between a text and one that it begins, in this order, begins with it too: neighbours are enough.
    prefixes = sorted(each for container in config.replaced for each in (container.env_prefix, container.from_prefix))
    if any(longer.startswith(shorter) for shorter, longer in itertools.pairwise(prefixes)):
        raise BadAgentConfig("Two prefixes of the agent configuration begin alike.")
    return config


def _replaced(value: object, where: str) -> ReplacedContainer:
    item = _object(value, where)
    return ReplacedContainer(
        name=_text(item, "name", where),
        env_prefix=_text(item, "envPrefix", where),
        from_prefix=_text(item, "fromPrefix", where),
        mount_point=_text(item, "mountPoint", where),
        ports=_items(item, "ports", where, _port),
        variables=_items(item, "variables", where, _variable),
    )


def _port(value: object, where: str) -> ContainerPort:
    item = _object(value, where)
    protocol = _text(item, "protocol", where)
    if protocol not in PROTOCOLS:
        raise BadAgentConfig(f"In the agent configuration {where}.protocol must be TCP or UDP.")
    name = item.get("name", "")
    if not isinstance(name, str):
        raise BadAgentConfig(f"In the agent configuration {where}.name must be a text.")
    return ContainerPort(port=_number(item, "containerPort", where, 1, 65535), protocol=protocol, name=name)


def _variable(value: object, where: str) -> Variable:
    item = _object(value, where)
    literal = item.get("literal")
    if not isinstance(literal, bool):
        raise BadAgentConfig(f"In the agent configuration {where}.literal must be true or false.")
    return Variable(name=_text(item, "name", where), literal=literal)


def _object(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadAgentConfig(f"In the agent configuration {where} must be an object.")
    return value


def _text(item: Mapping[str, object], key: str, where: str) -> str:
    value = item.get(key)
    if not isinstance(value, str) or not value:
        raise BadAgentConfig(f"In the agent configuration {where}.{key} must be a text that is not empty.")
    return value


def _number(item: Mapping[str, object], key: str, where: str, low: int, high: int) -> int:
    value = item.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BadAgentConfig(f"In the agent configuration {where}.{key} must be a number from {low} to {high}.")
    return value


Item = TypeVar("Item")


def _items(
    item: Mapping[str, object], key: str, where: str, read: Callable[[object, str], Item], most: int = MAX_LENGTH
) -> tuple[Item, ...]:
    value = item.get(key, [])
    if not isinstance(value, list):
        raise BadAgentConfig(f"In the agent configuration {where}.{key} must be a list.")
    if len(value) > most:
        raise BadAgentConfig(f"In the agent configuration {where}.{key} has more than {most} entries.")
    return tuple(read(entry, f"{key}[{number}]") for number, entry in enumerate(value))
