"""The agent and a real TLS server that plays the manager."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.registry import Credentials, ManagerUnavailable, Registry
from agent.tests.fake_manager import NAMESPACE, POD_UID, FakeManager
from tunnel.identity import Identity, Kind, identify
from tunnel.proto.manager_pb2 import AgentGrants, AgentReport, Grant
from tunnel.testing.certificates import FakeAuthority
from tunnel.testing.line_proxy import LineProxy


@pytest.fixture
def authority() -> FakeAuthority:
    return FakeAuthority()


def run(main: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(main, 20))


def registry(manager: FakeManager, token_file: Path, root: bytes | None = None) -> Registry:
    return Registry(f"127.0.0.1:{manager.port}", NAMESPACE, root or manager.authority.root_pem, token_file)


def test_certify(authority: FakeAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        manager = FakeManager(authority)
        token = tmp_path / "token"
        token.write_text("token-1\n")
        async with manager.serve():
            first: Credentials = await registry(manager, token).certify()
            second = await registry(manager, token).certify()
        assert identify(first.chain, Kind.AGENT).identity == Identity(Kind.AGENT, POD_UID)
        assert first.root == authority.root_pem
        keys = [x509.load_pem_x509_certificate(c.chain).public_key() for c in (first, second)]
        assert keys[0] != keys[1]

    run(main())


def test_the_token_is_read_for_every_call(authority: FakeAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        manager = FakeManager(authority)
        token = tmp_path / "token"
        async with manager.serve():
            client = registry(manager, token)
            with pytest.raises(ManagerUnavailable, match="token cannot be read"):
                await client.certify()
            token.write_text("old")
            with pytest.raises(ManagerUnavailable, match="UNAUTHENTICATED: no valid token"):
                await client.certify()
            with pytest.raises(ManagerUnavailable, match="UNAUTHENTICATED"):
                await client.attend(AgentReport(), lambda grants: None)
            token.write_text("token-1")
            await client.certify()

    run(main())


def test_only_the_manager_is_trusted(authority: FakeAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        token = tmp_path / "token"
        token.write_text("token-1")
        for serving, root, identity in (
            (authority, FakeAuthority().root_pem, None),  # of another root
            (authority, None, Identity(Kind.MANAGER, "other")),  # the manager of another namespace
            (authority, None, Identity(Kind.AGENT, POD_UID)),  # an agent that plays manager
        ):
            manager = FakeManager(serving)
            async with manager.serve(identity=identity):
                with pytest.raises(ManagerUnavailable, match="UNAVAILABLE"):
                    await registry(manager, token, root).certify()
            assert manager.certified == 0

    run(main())


def test_attend(authority: FakeAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        manager = FakeManager(authority)
        token = tmp_path / "token"
        token.write_text("token-1")
        received: asyncio.Queue[AgentGrants] = asyncio.Queue()
        report = AgentReport(pod_uid=POD_UID, port=9900, containers=["app"])
        async with manager.serve():
            attending = asyncio.create_task(registry(manager, token).attend(report, received.put_nowait), name="a")
            assert (await received.get()).lease_seconds == 300
            manager.grant(AgentGrants(grants=[Grant(session="s1")], lease_seconds=60))
            assert (await received.get()).grants[0].session == "s1"
            assert manager.reports == [report]
        with pytest.raises(ManagerUnavailable):
            await attending

    run(main())


def test_a_manager_that_falls_silent_is_noticed(
    authority: FakeAuthority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.registry.PING_SECONDS", 0.5)

    async def main() -> None:
        manager = FakeManager(authority)
        token = tmp_path / "token"
        token.write_text("token-1")
        received: asyncio.Queue[AgentGrants] = asyncio.Queue()
        async with manager.serve(), LineProxy(manager.port) as line:
            client = Registry(f"127.0.0.1:{line.port}", NAMESPACE, authority.root_pem, token)
            attending = asyncio.create_task(client.attend(AgentReport(), received.put_nowait), name="a")
            await received.get()
            line.cut(silent=True)
            with pytest.raises(ManagerUnavailable, match="UNAVAILABLE"):
                await asyncio.wait_for(attending, 10)

    run(main())


def test_a_cancelled_attendance_ends_the_stream(authority: FakeAuthority, tmp_path: Path) -> None:
    async def main() -> None:
        manager = FakeManager(authority)
        token = tmp_path / "token"
        token.write_text("token-1")
        async with manager.serve():
            attending = asyncio.create_task(
                registry(manager, token).attend(AgentReport(), lambda grants: None), name="a"
            )
            await manager.attending.wait()
            attending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await attending
            while manager.attending.is_set():  # noqa: ASYNC110 - the server notices in its own time
                await asyncio.sleep(0.01)

    run(main())
