"""An agent in wrong hands: on the laptop it reaches the engaged port's own target, and nothing else."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.cluster.commands import run
from integration.scenarios.access import compromised_agent
from integration.scenarios.access.processes import of_pod
from integration.scenarios.access.stage import Stage
from integration.scenarios.access.test_agents import QUESTION
from integration.scenarios.apps import LAPTOP
from integration.scenarios.user import eventually
from tunnel.proto import open_pb2

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("local_cluster")]

PORT = 9911
TCP, UDP = open_pb2.TCP, open_pb2.UDP
KINDS_OF_GARBAGE = 6


@contextmanager
def in_the_agents_place(stage: Stage) -> Iterator[None]:
    """Whoever is forwarded to the victim's agent comes to PORT of its pod; alice's laptop dials anew for it."""
    agent = of_pod(stage.apps.pod("victim")["metadata"]["uid"], "agent.main")
    enter = ["nsenter", "-t", str(agent), "--net", "nft"]
    rules = (
        "add table inet taken",
        "add chain inet taken output { type nat hook output priority -100; }",
        f"add rule inet taken output tcp dport 9900 redirect to :{PORT}",
    )
    for rule in rules:
        run([*enter, rule])
    try:
        reconnect(stage)
        yield
    finally:
        run([*enter, "delete table inet taken"])
        reconnect(stage)


def reconnect(stage: Stage) -> None:
    """Reset alice's connections to the API server."""
    stage.alice.laptop.cut()
    stage.alice.laptop.restore()


def opening(transport: open_pb2.Transport.ValueType, engagement: str, port: int) -> str:
    """As an honest agent would ask."""
    inbound = open_pb2.Inbound(
        transport=transport, engagement=engagement, container_port=port, caller_address=b"\x0a\xf4\0\1", caller_port=9
    )
    return open_pb2.Open(inbound=inbound).SerializeToString().hex()


def dialling(transport: open_pb2.Transport.ValueType, address: bytes, port: int) -> str:
    """As a session would ask the manager."""
    dial = open_pb2.Dial(transport=transport, address=address, port=port)
    return open_pb2.Open(dial=dial).SerializeToString().hex()


def forbidden(stage: Stage) -> list[tuple[str, str]]:
    """What it tries besides the engaged port: (kind of flow, body)."""
    mine = stage.uid("app")
    return [
        # Ports of the same engagement on which something listens here, or nothing.
        *(("STREAM", opening(TCP, mine, port)) for port in (7007, 8081, 22, 0, 65536 + 8080)),
        ("DATAGRAM", opening(UDP, mine, 8080)),
        ("DATAGRAM", opening(TCP, mine, 8080)),
        ("STREAM", opening(UDP, mine, 8080)),
        # Engagements that other agents serve, or other sessions have.
        *(("STREAM", opening(TCP, uid, 8080)) for uid in (stage.uid("other"), stage.uid("side"), "", "x" * 200)),
        # The laptop itself, its network, the cluster through it.
        ("STREAM", dialling(TCP, b"\x7f\0\0\1", 8080)),
        ("STREAM", dialling(TCP, bytes(15) + b"\1", 8080)),
        ("STREAM", dialling(TCP, bytes((192, 168, 57, 1)), 6443)),
        ("STREAM", dialling(TCP, bytes((10, 96, 0, 1)), 443)),
        ("DATAGRAM", dialling(UDP, bytes((192, 168, 57, 53)), 53)),
        *(("STREAM", body) for body in ("", "ff" * 64, os.urandom(512).hex())),
    ]


class Script:
    """The program in the agent's container, which speaks one line of JSON at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, what: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()

    def said(self) -> Any:
        """What it prints next."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], 15)
        text = self._process.stdout.readline() if readable else ""
        assert text, "it said nothing within 15 s"
        return json.loads(text)


@contextmanager
def compromised(stage: Stage) -> Iterator[Script]:
    """Runs in the victim's agent's container. Its pipes are closed with the `exec`, and that ends it."""
    pod = stage.apps.pod("victim")["metadata"]["name"]
    source = Path(compromised_agent.__file__).read_text()
    argv = [
        *(stage.cluster.kubectl_program(), f"--kubeconfig={stage.cluster.admin_kubeconfig}", "-n", stage.namespace),
        *("exec", "-i", pod, "-c", "traffic-agent", "--", "python3", "-I", "-c", source),
    ]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Script(process)
        finally:
            process.kill()


def test_a_compromised_agent_reaches_the_engaged_ports_target_only(stage: Stage) -> None:
    allowed = ("STREAM", opening(TCP, stage.uid("app"), 8080))
    tried = forbidden(stage)
    session = stage.alices_session()["metadata"]["uid"]
    with compromised(stage) as agent:
        agent.tell({"port": PORT, "session": session, "opens": [allowed, *tried, allowed], "query": QUESTION})
        assert agent.said() == "serving"
        with in_the_agents_place(stage):
            result = agent.said()
            first, *rest, last = result["opens"]
            assert (first, last) == ("OPENED", "OPENED")
            assert dict(zip(tried, rest, strict=True)) == dict.fromkeys(tried, "PROHIBITED")
            assert result["answer"] == ""
            # It may send what it likes: only its own carriers end.
            while agent.said() < KINDS_OF_GARBAGE:
                pass
            assert "the original" in stage.alice.curl("http://plain:8080/")
            assert "connected" in stage.alice.tpctl("status")
    eventually("the laptop's answer", lambda: stage.apps.get("http://victim:8080/").answer == LAPTOP)
