"""What is left when a session cannot be opened: nothing."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from tpd.session import connection
from tpd.session.carriers.peer import CallFailed, failures
from tpd.session.carriers.port_forward import PortForward, discard
from tpd.session.connect import open_session
from tpd.session.control import Progress
from tpd.session.errors import SessionError
from tpd.session.identity import new_identity
from tpd.session.kube import paths
from tpd.session.peer_link import PeerLink, Shared, Where
from tpd.session.settings import resolve
from tpd.session.tests.cluster import MANAGER, SESSIONS, Object, cluster
from tpd.session.tests.worker import connect_to, worker
from tunnel.kube.kubeconfig import Credentials
from tunnel.mux.flow import Flow, FlowHandler
from tunnel.mux.queries import Query
from tunnel.proto import daemon_pb2

SETTINGS = resolve(daemon_pb2.Connect(), Credentials("test", "demo", "http://here"))


def refuse(path: str, item: Object) -> None:
    item["status"] = {"phase": "Refused", "message": "not today"}


def expire(path: str, item: Object) -> None:
    item["status"] = {"phase": "Expired"}


@pytest.mark.parametrize(("end", "why"), [(refuse, "not today"), (expire, "its lease ended; try again")])
def test_a_session_that_does_not_come_to_be_leaves_neither_object_nor_port_forward(
    end: Callable[[str, Object], None], why: str
) -> None:
    async def run() -> None:
        async with asyncio.timeout(20), cluster() as away, away.api() as api:
            away.on_create = end
            away.gate.clear()
            opening = asyncio.create_task(open_session(api, SETTINGS, "machine", Progress(lambda _: None)))
            await away.until(lambda: bool(away.forwards))
            away.gate.set()
            with pytest.raises(SessionError, match=why):
                await opening
            assert away.below(SESSIONS) == []
            await away.until(lambda: not away.forwards)

    asyncio.run(run())


def test_a_port_forward_that_is_discarded_is_closed_whether_it_was_open_or_not() -> None:
    async def run() -> None:
        async with asyncio.timeout(20), cluster() as away, away.api() as api:
            opened = asyncio.create_task(PortForward.open(api, MANAGER, "manager-1", 8443))
            await opened
            await away.until(lambda: bool(away.forwards))
            discard(opened)
            opening = asyncio.create_task(PortForward.open(api, MANAGER, "manager-1", 8443))
            await asyncio.sleep(0)
            discard(opening)
            await asyncio.wait([opening])
            await away.until(lambda: not away.forwards)

    asyncio.run(run())


def test_a_manager_that_does_not_answer_is_asked_again_and_the_error_says_why(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connection, "_HELLO_LIMIT", 2.0)

    async def run() -> None:
        async with cluster() as away, worker() as tested:
            away.forward_error = b"lost connection to pod"
            tested.start(1, connect_to(away, tmp_path))
            await away.until(lambda: bool(away.forwarded))
            del away.objects[paths.pods(MANAGER, "manager-1")]
            away.add_manager("manager-2")
            error = (await tested.final(1)).error
            assert "does not answer through the port-forward (lost connection to pod)" in error.text
            assert error.retryable
            assert set(away.forwarded[1:]) == {"manager-2"}, "the pod is looked for before each attempt"
            assert away.below(SESSIONS) == []

    asyncio.run(run())


def test_each_way_in_which_a_call_can_fail_is_a_failed_call() -> None:
    async def run() -> None:
        channel = grpc.aio.insecure_channel("127.0.0.1:1")
        call: Any = channel.unary_unary("/a/b")
        with pytest.raises(CallFailed), failures():
            await call(b"")
        begun = call(b"", wait_for_ready=True)
        asyncio.get_running_loop().call_later(0.05, asyncio.create_task, channel.close(None))
        with pytest.raises(CallFailed, match="closed"), failures():
            await begun
        with pytest.raises(CallFailed, match="closed"), failures():
            await call(b"")

    asyncio.run(run())


def test_who_is_cancelled_in_a_call_is_cancelled() -> None:
    async def run() -> None:
        channel = grpc.aio.insecure_channel("127.0.0.1:1")
        call: Any = channel.unary_unary("/a/b")

        async def impatient() -> None:
            async with asyncio.timeout(0.05):
                with failures():
                    await call(b"", wait_for_ready=True)

        with pytest.raises(TimeoutError):
            await impatient()
        await channel.close(None)

    asyncio.run(run())


class Deaf:
    def on_open(self, flow: Flow, body: bytes) -> FlowHandler:
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        """Nothing is asked."""


def test_a_carrier_that_no_bridge_can_be_made_for_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> str:
        raise OSError("no space left on device")

    async def run() -> None:
        async with asyncio.timeout(20), cluster() as away, away.api() as api:
            carrier = asyncio.create_task(PortForward.open(api, MANAGER, "manager-1", 8443))
            await away.until(lambda: bool(away.forwards))
            monkeypatch.setattr(tempfile, "mkdtemp", full)
            identity = new_identity()

            async def locate() -> Where:
                return Where(MANAGER, "manager-1", 8443, "manager")

            link = PeerLink(
                api,
                name="manager",
                session="session",
                locate=locate,
                identity=lambda: identity,
                acceptor=Deaf(),
                on_state=lambda _: None,
                shared=Shared(),
                first=carrier,
            )
            running = asyncio.create_task(link.run())
            await away.until(lambda: not away.forwards)
            running.cancel()
            await asyncio.wait([running])

    asyncio.run(run())
