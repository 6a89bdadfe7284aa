import ipaddress

import pytest

from manager.state.dialpolicy import DialPolicy

POLICY = DialPolicy(
    own=[ipaddress.ip_address("10.244.0.5"), ipaddress.ip_address("fd00::5")],
    deny=[ipaddress.ip_network("10.9.0.0/16"), ipaddress.ip_network("fd09::/16")],
)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.8.8.8",
        "169.254.169.254",
        "169.254.1.1",
        "168.63.129.16",
        "100.100.100.200",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "10.244.0.5",
        "::ffff:10.244.0.5",
        "fd00::5",
        "10.9.1.2",
        "::ffff:10.9.1.2",
        "fd09::1",
    ],
)
def test_never(address: str) -> None:
    assert POLICY.refusal(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["10.244.0.6", "10.96.0.10", "fd00::6", "8.8.8.8", "100.64.0.1", "2001:db8::1"])
def test_the_cluster_and_what_lies_behind_it(address: str) -> None:
    assert POLICY.refusal(ipaddress.ip_address(address)) is None


def test_the_managers_own_service_is_learnt_later() -> None:
    policy = DialPolicy()
    service = ipaddress.ip_address("10.96.6.100")
    assert policy.refusal(service) is None
    policy.add_own(service)
    assert policy.refusal(service)
