"""What is left when a session cannot be opened: nothing."""

from __future__ import annotations

import asyncio
import tempfile

import pytest

from tpd.session.carriers.port_forward import PortForward, discard
from tpd.session.connect import open_session
from tpd.session.control import Progress
from tpd.session.errors import SessionError
from tpd.session.identity import new_identity
from tpd.session.peer_link import PeerLink, Shared, Where
from tpd.session.settings import resolve
from tpd.session.tests.cluster import MANAGER, SESSIONS, Object, cluster
from tunnel.kube.kubeconfig import Credentials
from tunnel.mux.flow import Flow, FlowHandler
from tunnel.mux.queries import Query
from tunnel.proto import daemon_pb2

SETTINGS = resolve(daemon_pb2.Connect(), Credentials("test", "demo", "http://here"))


def refuse(path: str, item: Object) -> None:
    item["status"] = {"phase": "Refused", "message": "not today"}


def test_a_refused_session_leaves_neither_object_nor_port_forward() -> None:
    async def run() -> None:
        async with asyncio.timeout(20), cluster() as away, away.api() as api:
            away.on_create = refuse
            away.gate.clear()
            opening = asyncio.create_task(open_session(api, SETTINGS, "machine", Progress(lambda _: None)))
            await away.until(lambda: bool(away.forwards))
            away.gate.set()
            with pytest.raises(SessionError, match="not today"):
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
