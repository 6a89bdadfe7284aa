"""What an agent may open on this laptop: its engaged ports' own targets, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tpd.session.engagements.ports import PortMapping
from tpd.session.engagements.targets import Target, Targets
from tunnel.proto import open_pb2


def body(engagement: str, port: int, transport: open_pb2.Transport.ValueType = open_pb2.TCP) -> bytes:
    return open_pb2.Open(
        inbound=open_pb2.Inbound(engagement=engagement, container_port=port, transport=transport)
    ).SerializeToString()


def targets() -> Targets:
    table = Targets()
    table.add("e1", "127.0.0.1", [PortMapping(3000, 8080, "TCP"), PortMapping(5300, 53, "UDP")])
    table.add("e2", "192.0.2.7", [PortMapping(4000, 8080, "TCP")])
    return table


def test_engaged_ports() -> None:
    table = targets()
    found = table.find(body("e1", 8080), {"e1"})
    assert found is not None
    assert found[0] == Target("127.0.0.1", 3000, "TCP")
    found = table.find(body("e1", 53, open_pb2.UDP), {"e1"})
    assert found is not None
    assert str(found[0]) == "127.0.0.1:5300/udp"


def test_nothing_else() -> None:
    table = targets()
    assert table.find(body("e1", 3000), {"e1"}) is None, "the local port is not for agents to choose"
    assert table.find(body("e1", 53), {"e1"}) is None, "wrong transport"
    assert table.find(body("e1", 8080, open_pb2.TRANSPORT_UNSPECIFIED), {"e1"}) is None
    assert table.find(body("e2", 8080), {"e1"}) is None, "another agent's engagement"
    assert table.find(body("e3", 8080), {"e3"}) is None
    dial = open_pb2.Open(dial=open_pb2.Dial(transport=open_pb2.TCP, address=b"\x7f\0\0\1", port=22))
    assert table.find(dial.SerializeToString(), {"e1", "e2", ""}) is None
    table.remove("e1")
    assert table.find(body("e1", 8080), {"e1"}) is None


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    targets().find(data, {"e1"})
