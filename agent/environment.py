"""The environment that the replaced container would have had.

What the webhook handed over comes back without its prefix, and `$(VAR)` is resolved in the kubelet's way
(`makeEnvironmentVariables` in pkg/kubelet/kubelet_pods.go): first `envFrom`, then the entries of `env` in their order,
where a literal may refer to everything that came before it and to the variables of services.
What the container's image sets (`ENV` in a Dockerfile) is not known here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tunnel.agentconfig import ReplacedContainer
from tunnel.expansion import expand

OF_THE_MACHINE = frozenset({"HOME", "PATH", "HOSTNAME"})
"""Right only inside the container: a process elsewhere keeps its own."""

_HOST = re.compile(r"(.+)_SERVICE_HOST")


def container_environment(environ: Mapping[str, str], container: ReplacedContainer) -> dict[str, str]:
    """The container's variables, resolved, from the agent's own environment. Values are valid Unicode."""
    services = service_variables(environ)
    known = {
        name.removeprefix(container.from_prefix): value
        for name, value in environ.items()
        if name.startswith(container.from_prefix)
    }

    def value_of(name: str) -> str | None:
        return known.get(name, services.get(name))

    for variable in container.variables:
        value = environ.get(container.env_prefix + variable.name)
        if value is not None:  # an optional key that does not exist
            known[variable.name] = expand(value, value_of) if variable.literal else value
    return {
        name: value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        for name, value in {**services, **known}.items()
        if name not in OF_THE_MACHINE
    }


def service_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the kubelet makes for services ("service links"), which every container of the pod gets.

    For a service X: X_SERVICE_HOST, X_SERVICE_PORT[_NAME], X_PORT, X_PORT_80_TCP[_PROTO|_PORT|_ADDR].
    """
    services = [
        match.group(1)
        for match in map(_HOST.fullmatch, environ)
        if match is not None and f"{match.group(1)}_SERVICE_PORT" in environ
    ]
    exact = {f"{service}{ending}" for service in services for ending in ("_SERVICE_HOST", "_SERVICE_PORT", "_PORT")}
    begin = tuple(f"{service}{middle}" for service in services for middle in ("_SERVICE_PORT_", "_PORT_"))
    return {
        name: value
        for name, value in environ.items()
        if (name in exact or name.startswith(begin)) and not name.startswith("_TEL_")
    }
