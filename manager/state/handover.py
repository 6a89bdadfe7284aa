"""What of a replaced container is handed over to the agent, and in which form: variables, volumes, privileges."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manager.state.resources import resolve_reference
from tunnel.agentconfig import APP_MOUNTS, PROTOCOLS, ContainerPort, ReplacedContainer, Variable
from tunnel.expansion import escape, expand


@dataclass(frozen=True, slots=True)
class Handover:
    """A replaced container's share in the agent's container."""

    config: ReplacedContainer
    env: list[dict[str, Any]]
    env_from: list[dict[str, Any]]
    volume_mounts: list[dict[str, Any]]


def hand_over(container: Mapping[str, Any], number: int) -> Handover:
    """The share of the `number`th replaced container. Raises ValueError for a resource that is no quantity."""
    letters = _letters(number)
    name = container["name"]
    config = ReplacedContainer(
        name=name,
        env_prefix=f"_TEL_APP_{letters}_",
        from_prefix=f"_TEL_FROM_{letters}_",
        mount_point=f"{APP_MOUNTS}/{name}",
        ports=tuple(
            ContainerPort(port["containerPort"], port.get("protocol", "TCP"), port.get("name", ""))
            for port in container.get("ports") or []
            if port.get("protocol", "TCP") in PROTOCOLS
        ),
        variables=tuple(
            Variable(entry["name"], literal="valueFrom" not in entry) for entry in _last_of_each(container)
        ),
    )
    return Handover(
        config=config,
        env=[_variable(entry, config.env_prefix, container) for entry in _last_of_each(container)],
        env_from=[
            {**source, "prefix": config.from_prefix + (source.get("prefix") or "")}
            for source in container.get("envFrom") or []
        ],
        volume_mounts=[_mount(mount, config) for mount in container.get("volumeMounts") or []],
    )


def _letters(number: int) -> str:
    """A, B, … Z, AA, AB, …"""
    text = ""
    while number >= 0:
        number, digit = divmod(number, 26)
        text = chr(ord("A") + digit) + text
        number -= 1
    return text


def _last_of_each(container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Its `env`, where of two entries of one name only the later counts."""
    last = {entry["name"]: entry for entry in container.get("env") or []}
    return [entry for entry in container.get("env") or [] if last[entry["name"]] is entry]


def _variable(entry: Mapping[str, Any], prefix: str, container: Mapping[str, Any]) -> dict[str, Any]:
    """The entry under its new name.

    A literal is escaped so that the kubelet hands it over as it stands: in the agent's container its references would
    mean the agent's own variables. The agent resolves them. A reference to the container's resources becomes the
    number it stands for, because that container is no more and the agent's own resources may differ.
    """
    name = prefix + entry["name"]
    source = entry.get("valueFrom")
    if source is None:
        return {"name": name, "value": escape(entry.get("value") or "")}
    reference = source.get("resourceFieldRef")
    if reference is not None and reference.get("containerName") in (None, "", container["name"]):
        value = resolve_reference(reference, container.get("resources") or {})
        if value is not None:
            return {"name": name, "value": value}
        source = {"resourceFieldRef": {k: v for k, v in reference.items() if k != "containerName"}}
    return {"name": name, "valueFrom": source}


def _mount(mount: Mapping[str, Any], config: ReplacedContainer) -> dict[str, Any]:
    """The same volume at the same path below the container's mount point, wherever `..` in the path would lead.

    Without propagation: Bidirectional needs a privileged container, and the agent is none.
    """
    path = posixpath.normpath("/" + mount["mountPath"]).lstrip("/")
    result = {
        key: value
        for key, value in mount.items()
        if key in {"name", "readOnly", "recursiveReadOnly", "subPath", "subPathExpr"}
    }
    result["mountPath"] = posixpath.join(config.mount_point, path).rstrip("/")
    if "subPathExpr" in result:
        own = {variable.name for variable in config.variables}

        def renamed(name: str) -> str:
            return f"$({config.env_prefix if name in own else config.from_prefix}{name})"

        result["subPathExpr"] = expand(result["subPathExpr"], renamed)
    return result


def security_context(
    containers: Sequence[Mapping[str, Any]], pod_context: Mapping[str, Any], ports: frozenset[int]
) -> dict[str, Any]:
    """The agent's privileges: the first container's user and groups, and nothing it may do beyond.

    The agent writes nothing and needs no unusual system call, whatever the app's container was allowed; a seccomp or
    AppArmor profile of the node's own is made for the app, not for the agent.

    To listen on a port below 1024 (`ports` are all it may have to take) it gets that one capability. A container that
    says nothing about its user runs as its image says, which is not known here; one that listens on such a port is
    root, or has a file capability that the agent cannot have: the agent is root then, where the pod allows it.
    """
    first = containers[0].get("securityContext") or {}
    context: dict[str, Any] = {
        key: first[key]
        for key in ("runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions")
        if first.get(key) is not None
    }
    apparmor = first.get("appArmorProfile")
    if apparmor is not None:
        context["appArmorProfile"] = {"type": "RuntimeDefault"} if apparmor.get("type") == "Localhost" else apparmor
    capabilities: dict[str, Any] = {"drop": ["ALL"]}
    if any(port < 1024 for port in ports):
        capabilities["add"] = ["NET_BIND_SERVICE"]
        stated = {**pod_context, **context}
        if stated.get("runAsUser") is None and not stated.get("runAsNonRoot"):
            context["runAsUser"] = 0
    context["capabilities"] = capabilities
    context["allowPrivilegeEscalation"] = False
    context["readOnlyRootFilesystem"] = True
    context["seccompProfile"] = {"type": "RuntimeDefault"}
    return context
