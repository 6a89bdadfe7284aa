"""Staying logged in, with a plugin that counts how often it runs and a server that is hard to please."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from tunnel.identity import Identity, Kind
from tunnel.kube import login as login_module
from tunnel.kube.api import Api, from_kubeconfig
from tunnel.kube.errors import ApiError, KubeconfigError
from tunnel.kube.exec_plugin import ExecPlugin
from tunnel.kube.kubeconfig import Credentials
from tunnel.kube.login import Login
from tunnel.testing.api_server import serving
from tunnel.testing.certificates import FakeAuthority, Holder

VERSION = "client.authentication.k8s.io/v1"
ENVIRONMENT = dict(os.environ)


class Plugin:
    """A program that gives what `says`, after `before` (shell), and leaves a line each time."""

    def __init__(self, folder: Path) -> None:
        self._answer = folder / "answer"
        self._before = folder / "before"
        self._ran = folder / "ran"
        self.before = ""
        script = f"echo >>{self._ran}; . {self._before}; cat {self._answer}"
        self.command = ("sh", "-c", script)

    def says(
        self, *, before: str = "", lives: float | None = None, pair: Holder | None = None, token: str = ""
    ) -> None:
        status = {"token": token}
        if pair is not None:
            status = {"clientCertificateData": pair.chain_pem.decode(), "clientKeyData": pair.key_pem.decode()}
        if lives is not None:
            moment = time.gmtime(time.time() + lives)
            status["expirationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", moment)
        self._answer.write_text(json.dumps({"apiVersion": VERSION, "kind": "ExecCredential", "status": status}))
        self._before.write_text(before)

    @property
    def ran(self) -> int:
        return len(self._ran.read_text()) if self._ran.exists() else 0

    def login(self) -> Login:
        plugin = ExecPlugin(VERSION, self.command[0], self.command[1:])
        return Login(Credentials("c", "n", "http://api", exec_plugin=plugin), ENVIRONMENT)


def test_a_plugin_runs_again_only_when_its_proof_has_ended(tmp_path: Path) -> None:
    async def body() -> None:
        plugin = Plugin(tmp_path)
        plugin.says(token="one")
        login = plugin.login()
        for _ in range(3):
            assert (await login.current()).token == "one"
        assert plugin.ran == 1
        plugin.says(token="two", lives=-1)
        other = plugin.login()
        for _ in range(3):
            assert (await other.current()).token == "two"  # an end in the past: the clocks differ
        assert plugin.ran == 2

    asyncio.run(body())


def test_one_renewal_serves_all_and_outlives_those_who_gave_up(tmp_path: Path) -> None:
    async def body() -> None:
        plugin = Plugin(tmp_path)
        plugin.says(before="sleep 0.4", token="one")
        login = plugin.login()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(login.current(), 0.05)
        found = await asyncio.gather(login.current(), login.current())
        assert [grant.token for grant in found] == ["one", "one"]
        assert plugin.ran == 1

    asyncio.run(body())


def test_a_failure_is_told_and_not_repeated_at_once(tmp_path: Path) -> None:
    async def body() -> None:
        plugin = Plugin(tmp_path)
        plugin.says(before="echo session expired >&2; exit 1")
        login = plugin.login()
        for _ in range(3):
            with pytest.raises(KubeconfigError, match=r"status 1 \(session expired\)"):
                await login.current()
        assert plugin.ran == 1

    asyncio.run(body())


def test_a_renewal_that_hangs_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "FIRST_LIMIT", 0.2)

    async def body() -> None:
        plugin = Plugin(tmp_path)
        plugin.says(before="sleep 30")
        with pytest.raises(KubeconfigError, match="gave nothing within"):
            await plugin.login().current()

    asyncio.run(body())


def test_closing_ends_a_plugin(tmp_path: Path) -> None:
    async def body() -> None:
        plugin = Plugin(tmp_path)
        plugin.says(before="sleep 30")
        login = plugin.login()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(login.current(), 0.1)
        await asyncio.wait_for(login.close(), 5)

    asyncio.run(body())


class Server:
    """Takes the tokens in `good`; keeps the headers of what came."""

    def __init__(self, *good: str) -> None:
        self.good = list(good)
        self.came: list[Any] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.came.append(request.headers)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.good:
            return web.json_response({"kind": "Status", "code": 401, "message": "Unauthorized"}, status=401)
        return web.json_response({"path": request.path})


def kubeconfig(folder: Path, server: str, **user: object) -> str:
    path = folder / "config"
    document = {
        "current-context": "dev",
        "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "dev"}}],
        "clusters": [{"name": "dev", "cluster": {"server": server}}],
        "users": [{"name": "dev", "user": user}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


def test_a_token_that_changed_on_disk_is_taken_when_the_old_one_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        server = Server("old")
        async with serving(server) as known:
            path = kubeconfig(tmp_path, known.server, token="old")
            async with await from_kubeconfig({}, paths=[path]) as api:
                await api.get("/a")
                kubeconfig(tmp_path, known.server, token="new")
                await api.get("/b")
                server.good = ["new"]
                assert await api.get("/c") == {"path": "/c"}
                server.good = []
                with pytest.raises(ApiError, match="Unauthorized"):
                    await api.get("/d")
        assert [each["Authorization"][7:] for each in server.came] == ["old", "old", "old", "new", "new"]

    asyncio.run(body())


def test_the_token_of_another_server_is_not_taken(tmp_path: Path) -> None:
    async def body() -> None:
        server = Server("old")
        async with serving(server) as known:
            path = kubeconfig(tmp_path, known.server, token="old")
            async with await from_kubeconfig({}, paths=[path]) as api:
                kubeconfig(tmp_path, "http://other", token="new")
                server.good = ["new"]
                with pytest.raises(ApiError, match="Unauthorized"):
                    await api.get("/a")
        assert [each["Authorization"] for each in server.came] == ["Bearer old"]

    asyncio.run(body())


def test_a_plugin_runs_again_when_its_token_is_refused(tmp_path: Path) -> None:
    async def body() -> None:
        plugin, server = Plugin(tmp_path), Server("one")
        plugin.says(token="one")
        entry = {"apiVersion": VERSION, "command": plugin.command[0], "args": list(plugin.command[1:])}
        async with serving(server) as known:
            path = kubeconfig(tmp_path, known.server, exec=entry)
            async with await from_kubeconfig(ENVIRONMENT, paths=[path]) as api:
                await api.get("/a")
                await api.get("/b")
                assert plugin.ran == 1
                api._login._not_before = 0.0
                plugin.says(token="two")
                server.good = ["two"]
                found = await asyncio.gather(*(api.get("/c") for _ in range(5)))
                assert found == [{"path": "/c"}] * 5
                assert plugin.ran == 2

    asyncio.run(body())


def test_a_plugins_new_certificate_is_shown(tmp_path: Path) -> None:
    async def body() -> None:
        authority = FakeAuthority()
        plugin = Plugin(tmp_path)
        plugin.says(pair=authority.issue(Identity(Kind.SESSION, "one")))
        shown: list[str] = []

        async def handler(request: web.Request) -> web.StreamResponse:
            assert request.transport is not None
            names = request.transport.get_extra_info("peercert")["subjectAltName"]
            shown.append(dict(names)["URI"])
            return web.json_response({}, status=401 if len(shown) == 2 else 200)

        async with serving(handler, tmp_path, authority) as known:
            exec_plugin = ExecPlugin(VERSION, plugin.command[0], plugin.command[1:])
            credentials = Credentials(
                "c", "n", known.server, ca=known.ca, server_name=known.server_name, exec_plugin=exec_plugin
            )
            async with Api(credentials, login=Login(credentials, ENVIRONMENT)) as api:
                await api.get("/a")
                api._login._not_before = 0.0
                plugin.says(pair=authority.issue(Identity(Kind.SESSION, "two")))
                await api.get("/b")
        assert [uri.rpartition("/")[2] for uri in shown] == ["one", "one", "two"]

    asyncio.run(body())


def test_the_server_is_asked_to_take_us_for_another(tmp_path: Path) -> None:
    async def body() -> None:
        server = Server("t")
        async with serving(server) as known:
            path = kubeconfig(tmp_path, known.server, **{"token": "t", "as": "bob", "as-groups": ["dev", "ops"]})
            async with await from_kubeconfig({}, paths=[path]) as api:
                await api.get("/a")
                with pytest.raises(ApiError):
                    await api.upgrade("/b", protocol="p")
        for headers in server.came:
            assert headers["Impersonate-User"] == "bob"
            assert headers.getall("Impersonate-Group") == ["dev", "ops"]

    asyncio.run(body())


def test_a_token_file_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_module, "_TOKEN_FILE_LIFE", -1.0)

    async def body() -> None:
        file = tmp_path / "token"
        file.write_text("one\n")
        login = Login(Credentials("c", "n", "http://api", token_file=str(file)))
        assert (await login.current()).token == "one"
        file.write_text("two\n")
        login._not_before = 0.0
        assert (await login.current()).token == "two"

    asyncio.run(body())
