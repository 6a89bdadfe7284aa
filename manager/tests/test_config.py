import json

import pytest

from manager.config import ConfigError, from_environment

BASE = {"POD_NAME": "p", "POD_UID": "u", "POD_NAMESPACE": "n", "POD_IPS": "10.0.0.1,fd00::1"}


def test_the_charts_values_are_read() -> None:
    document = {
        "leaseSeconds": 15,
        "deny": ["10.0.0.0/8"],
        "policy": "x-identity",
        "agent": {"image": "agent:1", "pullPolicy": "Never", "resources": {"limits": {"cpu": "1"}}},
    }
    config = from_environment({**BASE, "TPCTL_CONFIG": json.dumps(document)})
    assert config.lease_seconds == 15
    assert [str(address) for address in config.pod_addresses] == ["10.0.0.1", "fd00::1"]
    assert config.agent.image == "agent:1"
    assert str(config.deny[0]) == "10.0.0.0/8"


def test_defaults_do() -> None:
    assert from_environment(BASE).lease_seconds == 300


@pytest.mark.parametrize("text", ["[", "[]", '{"deny": ["x"]}', '{"leaseSeconds": "soon"}', '{"agent": 1}'])
def test_nonsense_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="TPCTL_CONFIG"):
        from_environment({**BASE, "TPCTL_CONFIG": text})


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="POD_UID"):
        from_environment({"POD_NAME": "p"})
