"""What systemd-resolved is told: golden calls."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from tpd.supervisor.host.resolver import resolved
from tpd.supervisor.host.types import HostError, Slot

SLOT = Slot(0, ipaddress.IPv4Address("198.19.254.1"), ipaddress.IPv4Address("198.19.254.2"))


def test_calls() -> None:
    assert resolved.calls(5, SLOT, ["demo.svc.cluster.local", "cluster.local"], ["svc", "cluster.local"]) == [
        ("SetLinkLLMNR", "is", (5, "no")),
        ("SetLinkMulticastDNS", "is", (5, "no")),
        ("SetLinkDNSSEC", "is", (5, "no")),
        ("SetLinkDNSOverTLS", "is", (5, "no")),
        ("SetLinkDefaultRoute", "ib", (5, False)),
        (
            "SetLinkDomains",
            "ia(sb)",
            (5, [("demo.svc.cluster.local", False), ("cluster.local", False), ("svc", True)]),
        ),
        ("SetLinkDNS", "ia(iay)", (5, [(2, bytes((198, 19, 254, 2)))])),
    ]


def test_no_bus_is_no_resolved_and_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    assert asyncio.run(resolved.answers()) is False
    with pytest.raises(HostError, match="cannot be reached over D-Bus"):
        asyncio.run(resolved._make([("GetLink", "i", (1,))]))
    asyncio.run(resolved.undo({"ifindex": 5}))
