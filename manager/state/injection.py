"""How a pod becomes the pod in which a traffic-agent has taken the place of one container, or of several.

Pure: a pod and a wish in, a pod out. The webhook calls it at the pod's creation; nothing else shapes a pod.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from manager.state.handover import Handover, hand_over, security_context
from manager.state.resources import combined
from tunnel import agentconfig
from tunnel.agentconfig import (
    AGENT_CONTAINER,
    ANNOTATION,
    MAX_LENGTH,
    MAX_REPLACED,
    AgentConfig,
    BadAgentConfig,
    ManagerAddress,
    Workload,
)

AGENT_PORT = 9900
"""Where the agent serves, and the next where it is probed; or the next two above that no container declares."""

TOKEN_VOLUME = "traffic-agent-token"
TOKEN_SECONDS = 3600
"""Life of the projected token; the kubelet renews it at four fifths of that."""

_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"


class NotInjectable(Exception):
    """This pod cannot have the agent; the text is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a pod should become."""

    image: str
    """Of the agent; its entry point starts it."""
    pull_policy: str
    root_pem: str
    """The manager's root certificate, the only one the agent trusts."""
    manager: ManagerAddress
    workload: Workload
    containers: frozenset[str]
    """The containers to replace."""
    ports: frozenset[int] = frozenset()
    """Container ports that the engagements ask for; they need not be declared."""
    resources: Mapping[str, Any] = field(default_factory=dict)
    """The agent's, from the chart. Empty: those of the containers it replaces."""


def inject(pod: Mapping[str, Any], wish: Wish) -> dict[str, Any]:
    """The pod with the agent in place of the containers wished for; `pod` stays as it is.

    A pod that is so already comes back unchanged, so that the webhook may be called again. Raises NotInjectable.
    """
    result = copy.deepcopy(dict(pod))
    if not wish.containers:
        return result
    present = _present_config(pod)
    if present is not None:
        names = {container.name for container in present.replaced}
        if names == wish.containers:
            return result
        raise NotInjectable(
            f"The pod has its traffic-agent in place of {_list(names)} already, not of {_list(wish.containers)}; "
            "it must be created anew."
        )
    spec = result["spec"]
    replaced = _replaceable(spec, wish)
    ports = wish.ports | {port["containerPort"] for container in replaced for port in container.get("ports") or []}
    try:
        handovers = [hand_over(container, number) for number, container in enumerate(replaced)]
        resources = dict(wish.resources) or combined(
            [container.get("resources") or {} for container in replaced],
            raise_limits=not spec.get("resources"),  # the pod's own limits bound its containers'
        )
    except ValueError as error:
        raise NotInjectable(f"The resources of the container cannot be read: {error}") from None
    agent_port, ready_port = _agent_ports(spec, wish.ports)
    config = AgentConfig(
        manager=wish.manager,
        workload=wish.workload,
        agent_port=agent_port,
        ready_port=ready_port,
        replaced=tuple(handover.config for handover in handovers),
    )
    document = config.to_json()
    if len(document) > MAX_LENGTH or len(replaced) > MAX_REPLACED:
        raise NotInjectable("The replaced containers have more variables and ports than an agent can be told of.")
    agent = _agent(config, handovers, wish)
    declared = _declared(replaced)
    if declared:
        agent["ports"] = declared
    if resources:
        agent["resources"] = resources
    agent["securityContext"] = security_context(replaced, spec.get("securityContext") or {}, frozenset(ports))

    place = spec["containers"].index(replaced[0])
    others = [container for container in spec["containers"] if container["name"] not in wish.containers]
    spec["containers"] = [*others[:place], agent, *others[place:]]
    spec["volumes"] = [*(spec.get("volumes") or []), _token_volume()]
    _redirect_resource_references(spec, wish.containers)
    metadata = result.setdefault("metadata", {})
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        # The API server refuses an AppArmor annotation for a container that the pod does not have.
        if not (key.startswith(_APPARMOR) and key.removeprefix(_APPARMOR) in wish.containers)
    }
    metadata["annotations"] = {**annotations, ANNOTATION: document}
    return result


def injected_containers(pod: Mapping[str, Any]) -> frozenset[str]:
    """The containers whose place the agent has in this pod; empty for a pod without an agent."""
    config = _present_config(pod)
    return frozenset(container.name for container in config.replaced) if config is not None else frozenset()


def agent_config(pod: Mapping[str, Any]) -> AgentConfig | None:
    """The configuration of the pod's agent; None for a pod without an agent."""
    return _present_config(pod)


def _present_config(pod: Mapping[str, Any]) -> AgentConfig | None:
    """What the annotation says, if the pod agrees: an annotation copied from another pod says nothing."""
    text = ((pod.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION)
    containers = {container["name"] for container in (pod.get("spec") or {}).get("containers") or []}
    if not isinstance(text, str) or AGENT_CONTAINER not in containers:
        return None
    config = _parsed(text)
    return None if config is None or any(container.name in containers for container in config.replaced) else config


@functools.lru_cache(maxsize=512)
def _parsed(text: str) -> AgentConfig | None:
    """The document, or None for what is none. Remembered: every look at a pod, at any change of any pod, asks again."""
    try:
        return agentconfig.parse(text)
    except BadAgentConfig:
        return None


def _replaceable(spec: Mapping[str, Any], wish: Wish) -> list[Mapping[str, Any]]:
    """The containers to replace, in the pod's order, or why not."""
    if spec.get("hostNetwork"):
        raise NotInjectable(
            "The pod uses its node's network (hostNetwork), where an agent would take the node's ports."
        )
    if (spec.get("os") or {}).get("name") == "windows":
        raise NotInjectable("The pod runs on Windows, for which there is no agent.")
    names = {container["name"] for container in spec["containers"]}
    missing = wish.containers - names
    for container in spec.get("initContainers") or []:
        if container["name"] in missing:
            what = "a native sidecar" if container.get("restartPolicy") == "Always" else "an init container"
            raise NotInjectable(f"The container {container['name']} is {what} and cannot be replaced.")
    if missing:
        raise NotInjectable(f"The pod has no container {_list(missing)}; it has {_list(names)}.")
    if AGENT_CONTAINER in names:
        raise NotInjectable(f"The pod has a container {AGENT_CONTAINER} of its own; rename it.")
    if any(volume["name"] == TOKEN_VOLUME for volume in spec.get("volumes") or []):
        raise NotInjectable(f"The pod has a volume {TOKEN_VOLUME} of its own; rename it.")
    return [container for container in spec["containers"] if container["name"] in wish.containers]


def _declared(containers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ports of these containers as one container may declare them: each name once, each port once for each name.

    A name means the first port that has it, as it does to a Service whose pods have it in several containers.
    """
    result: list[dict[str, Any]] = []
    numbers: set[tuple[int, str]] = set()
    names: dict[str, str] = {}
    for port in (port for container in containers for port in container.get("ports") or []):
        kept, protocol = dict(port), port.get("protocol") or "TCP"
        name = kept.get("name")
        if name in names:
            if names[name] != protocol:
                raise NotInjectable(f"The containers call two ports {name}, of different protocols; one agent cannot.")
            del kept["name"]
        elif name:
            names[name] = protocol
        if "name" in kept or (port["containerPort"], protocol) not in numbers:
            result.append(kept)
        numbers.add((port["containerPort"], protocol))
    return result


def _agent(config: AgentConfig, handovers: list[Handover], wish: Wish) -> dict[str, Any]:
    """The agent's container, all but ports, resources and privileges."""

    def downward(path: str) -> dict[str, Any]:
        return {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}

    agent: dict[str, Any] = {
        "name": AGENT_CONTAINER,
        "image": wish.image,
        "imagePullPolicy": wish.pull_policy,
        "env": [
            {"name": agentconfig.ENV_CONFIG, "valueFrom": downward(f"metadata.annotations['{ANNOTATION}']")},
            {"name": agentconfig.ENV_ROOT, "value": wish.root_pem},
            {"name": agentconfig.ENV_POD_NAME, "valueFrom": downward("metadata.name")},
            {"name": agentconfig.ENV_POD_UID, "valueFrom": downward("metadata.uid")},
            {"name": agentconfig.ENV_POD_NAMESPACE, "valueFrom": downward("metadata.namespace")},
            {"name": agentconfig.ENV_POD_ADDRESS, "valueFrom": downward("status.podIP")},
            *(entry for handover in handovers for entry in handover.env),
        ],
        # A connection to a port that is open while the agent serves somebody: without a grant it refuses callers, and
        # no Service should send any. The agent's own port is always open, and a command is a Python process each time.
        "readinessProbe": {"tcpSocket": {"port": config.ready_port}, "periodSeconds": 1, "failureThreshold": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": TOKEN_VOLUME, "mountPath": agentconfig.TOKEN_DIRECTORY, "readOnly": True},
            *(mount for handover in handovers for mount in handover.volume_mounts),
        ],
    }
    env_from = [source for handover in handovers for source in handover.env_from]
    if env_from:
        agent["envFrom"] = env_from
    return agent


def _token_volume() -> dict[str, Any]:
    """The proof of which pod the agent is, for the manager alone; also where the pod mounts no token of its own."""
    token = {"audience": agentconfig.TOKEN_AUDIENCE, "expirationSeconds": TOKEN_SECONDS, "path": "token"}
    return {"name": TOKEN_VOLUME, "projected": {"sources": [{"serviceAccountToken": token}]}}


def _redirect_resource_references(spec: Mapping[str, Any], replaced: frozenset[str]) -> None:
    """What refers to the resources of a container that is no more refers to the agent's, which took them over.

    Other containers' variables and downward volumes may do so; the kubelet starts nothing with a dangling reference.
    """
    entries = [
        (entry.get("valueFrom") or {}).get("resourceFieldRef")
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]
        for entry in container.get("env") or []
    ]
    for volume in spec["volumes"]:
        sources = [volume, *((volume.get("projected") or {}).get("sources") or [])]
        entries += [
            item.get("resourceFieldRef")
            for source in sources
            for item in (source.get("downwardAPI") or {}).get("items") or []
        ]
    for reference in entries:
        if reference is not None and reference.get("containerName") in replaced:
            reference["containerName"] = AGENT_CONTAINER


def _agent_ports(spec: Mapping[str, Any], wished: frozenset[int]) -> tuple[int, int]:
    """The first two ports from AGENT_PORT that no container of the pod declares and no engagement asks for."""
    taken = set(wished) | {
        port["containerPort"]
        for container in [*spec["containers"], *(spec.get("initContainers") or [])]
        for port in container.get("ports") or []
    }
    free = (port for port in range(AGENT_PORT, 65536) if port not in taken)
    return next(free), next(free)


def _list(names: frozenset[str] | set[str]) -> str:
    return ", ".join(sorted(names))
