"""The handler's environment is the container's."""

from __future__ import annotations

import pytest

from agent.environment import container_environment, service_variables
from tunnel.agentconfig import ReplacedContainer, Variable

SERVICES = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "KUBERNETES_SERVICE_PORT": "443",
    "KUBERNETES_SERVICE_PORT_HTTPS": "443",
    "KUBERNETES_PORT": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP": "tcp://10.96.0.1:443",
    "KUBERNETES_PORT_443_TCP_ADDR": "10.96.0.1",
    "MY_DB_SERVICE_HOST": "10.96.3.4",
    "MY_DB_SERVICE_PORT": "5432",
}
OWN = {
    "PATH": "/agent/bin",
    "HOME": "/",
    "HOSTNAME": "echo-1",
    "LANG": "C.UTF-8",
    "PYTHON_VERSION": "3.11",
    "AGENT_CONFIG": "{}",
    "POD_NAME": "echo-1",
    "MANAGER_ROOT": "PEM",
    "LONELY_SERVICE_HOST": "no port, no service",
}


def resolved(variables: list[tuple[str, str, bool]], env_from: dict[str, str] | None = None) -> dict[str, str]:
    """The app's part of the environment of a container with these `env` (name, value, literal) and `envFrom`."""
    container = ReplacedContainer(
        name="app",
        env_prefix="_TEL_APP_A_",
        from_prefix="_TEL_FROM_A_",
        mount_point="/tel_app_mounts/app",
        variables=tuple(Variable(name, literal) for name, _, literal in variables),
    )
    environ = {**SERVICES, **OWN, "_TEL_APP_B_OTHER": "of another container"}
    environ |= {f"_TEL_FROM_A_{name}": value for name, value in (env_from or {}).items()}
    environ |= {f"_TEL_APP_A_{name}": value for name, value, _ in variables}
    result = container_environment(environ, container)
    assert result.keys() >= SERVICES.keys()
    return {name: value for name, value in result.items() if SERVICES.get(name) != value}


@pytest.mark.parametrize(
    ("variables", "env_from", "expected"),
    [
        ([], {}, {}),
        ([("A", "1", True), ("B", "<$(A)>", True)], {}, {"A": "1", "B": "<1>"}),
        # Only what comes before is known.
        ([("B", "<$(A)>", True), ("A", "1", True)], {}, {"A": "1", "B": "<$(A)>"}),
        ([("A", "$$(B)", True)], {"B": "1"}, {"A": "$(B)", "B": "1"}),
        # A resolved value is not resolved again.
        ([("A", "$$(X)", True), ("B", "$(A)", True), ("X", "1", True)], {}, {"A": "$(X)", "B": "$(X)", "X": "1"}),
        # Only literals are resolved.
        ([("A", "1", True), ("SECRET", "$(A)$$", False)], {}, {"A": "1", "SECRET": "$(A)$$"}),
        ([], {"MAP": "$(A)", "A": "1"}, {"MAP": "$(A)", "A": "1"}),
        (
            [("S", "s", False), ("URL", "db://$(S)@$(MY_DB_SERVICE_HOST)", True)],
            {},
            {"S": "s", "URL": "db://s@10.96.3.4"},
        ),
        # `env` wins over `envFrom`, but may refer to what `envFrom` gave under the same name.
        ([("A", "$(A)+", True)], {"A": "1"}, {"A": "1+"}),
        # The app's own variable wins over a service's, in a reference and in the result.
        (
            [("MY_DB_SERVICE_HOST", "localhost", True), ("B", "$(MY_DB_SERVICE_HOST)", True)],
            {},
            {"MY_DB_SERVICE_HOST": "localhost", "B": "localhost"},
        ),
        # The agent's own variables are not the app's.
        ([("B", "$(POD_NAME)$(LANG)", True)], {}, {"B": "$(POD_NAME)$(LANG)"}),
        ([("POD_NAME", "app's", True)], {}, {"POD_NAME": "app's"}),
        # A path of the container means nothing on a laptop, but other values may use it.
        ([("PATH", "/app", True), ("P", "$(PATH)/x", True), ("HOME", "/h", True)], {"HOSTNAME": "h"}, {"P": "/app/x"}),
        ([("FROM_A", "1", True)], {"A": "2"}, {"FROM_A": "1", "A": "2"}),
        ([("EMPTY", "", True), ("B", "[$(EMPTY)]", True)], {}, {"EMPTY": "", "B": "[]"}),
        ([("BYTES", "caf\udce9", True)], {}, {"BYTES": "caf\ufffd"}),
    ],
)
def test_resolution(variables: list[tuple[str, str, bool]], env_from: dict[str, str], expected: dict[str, str]) -> None:
    assert resolved(variables, env_from) == expected


def test_an_optional_variable_without_value_is_absent() -> None:
    container = ReplacedContainer(
        "app", "_TEL_APP_A_", "_TEL_FROM_A_", "/x", (), (Variable("A", literal=False), Variable("B", literal=True))
    )
    assert container_environment({"_TEL_APP_A_B": "$(A)"}, container) == {"B": "$(A)"}


def test_service_variables() -> None:
    assert service_variables({**SERVICES, **OWN, "KUBERNETES_PORTAL": "x", "MY_DBX": "y"}) == SERVICES
