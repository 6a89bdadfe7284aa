"""What a session asks the host for is what the host's policy grants: both sides of one agreement."""

from __future__ import annotations

import ipaddress

from tpd.session.dns.names import names_of
from tpd.session.subnets import host_config
from tpd.supervisor.host import policy
from tpd.supervisor.host.types import Facts, Granted, Holder, Slot, Upstreams, Wish
from tpd.tlds import is_taken


def test_what_a_session_asks_for_is_granted_as_a_whole() -> None:
    subnets = ["10.96.0.0/16", "10.244.0.0/24", "fd00:10:96::/112"]
    names = names_of(
        connected="demo",
        managed=["demo", "shop"],
        mapped=[],
        cluster_domain="cluster.local",
        subnets=subnets,
        host_search=["corp.example"],
        taken=is_taken,
    )
    config = host_config(subnets, ["203.0.113.7", "10.96.0.1"], names)
    slot = Slot(0, ipaddress.IPv4Address("198.19.254.1"), ipaddress.IPv4Address("198.19.254.2"))
    wish = Wish(
        subnets=tuple(config.subnets),
        bypass=tuple(config.bypass),
        search=tuple(config.search),
        domains=tuple(config.domains),
        dns=True,
    )
    granted = policy.decide(
        wish,
        me=Holder(slot, "me", 1000, Granted()),
        facts=Facts(),
        upstreams=Upstreams(search=("corp.example",)),
        policy=policy.Policy(),
        others=(),
    )
    assert granted.refused == ()
    assert [str(subnet) for subnet in granted.subnets] == subnets
    assert granted.domains == tuple(config.domains)
    assert granted.search == tuple(config.search)
