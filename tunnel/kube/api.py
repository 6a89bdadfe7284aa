"""One authenticated connection pool to one API server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from tunnel.kube.errors import KubeconfigError, KubeError, Unreachable, from_response, from_status
from tunnel.kube.grant import Grant
from tunnel.kube.kubeconfig import Credentials, load, paths_from
from tunnel.kube.login import Login
from tunnel.kube.proxy import proxy_of, shown
from tunnel.kube.resolver import LastGoodResolver, Resolve
from tunnel.kube.sockets import watchful_socket
from tunnel.kube.tls import client_context
from tunnel.kube.upgrade import Upgraded, upgrade_headers

Object = dict[str, Any]
"""A Kubernetes object, or any other JSON document of the API."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"

REQUEST_TIMEOUT = 15.0
"""Seconds for one request, connection included; watches have their own limits."""
CONNECT_TIMEOUT = 8.0
WATCH_SILENCE = 90.0
"""Seconds without a line after which a watch is given up: bookmarks come about once a minute when nothing else does."""
_LONGEST_WATCH_LINE = 8 * 1024 * 1024
_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Api:
    """Requests to one API server as one user. Paths start with `/`; bodies and answers are dictionaries.

    `login`: who we are; without it, what the credentials themselves hold. `resolve(host)` gives the addresses of the
    server's and the proxy's name (`tunnel.kube.resolver.Resolve`); without it the system's resolver is asked. The last
    good addresses are used while it fails. Raises `KubeconfigError` for certificates that cannot be used.
    """

    def __init__(self, credentials: Credentials, *, login: Login | None = None, resolve: Resolve | None = None) -> None:
        self._credentials = credentials
        self.server = credentials.server
        self.context = credentials.context
        self.namespace = credentials.namespace
        self.proxy = credentials.proxy
        self._login = login or Login(credentials)
        self._shown = self._login.grant
        self._ssl = self._make_ssl(self._shown)
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._resolver = LastGoodResolver(resolve)
        self._watches: set[aiohttp.ClientResponse] = set()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._closed:
            raise KubeError(f"the connection to the API server {self.server} was closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, keepalive_timeout=30, resolver=self._resolver, socket_factory=watchful_socket
                ),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT),
                proxy=self._credentials.proxy,
                read_bufsize=256 * 1024,
            )
        return self._session

    async def __aenter__(self) -> Api:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; requests raise `KubeError` from then on. Idempotent."""
        self._closed = True
        await self._login.close()
        if self._session is not None:
            await self._session.close()

    def start_afresh(self) -> None:
        """The way to the server has changed: end every watch (`Unreachable`), and use no idle connection again.

        What is under way otherwise, port-forwards above all, goes on.
        """
        for response in self._watches:
            response.close()
        # Connections of another context are not taken from the pool, which closes them when they were idle enough.
        self._ssl = self._make_ssl(self._shown)

    async def get(self, path: str, **params: str) -> Object:
        """GET one object."""
        return await self.request("GET", path, params=params)

    async def list(self, path: str, **params: str) -> Object:
        """GET a collection; the answer's `items` and `metadata.resourceVersion`."""
        return await self.request("GET", path, params=params)

    async def create(self, path: str, body: Object, **params: str) -> Object:
        """POST to a collection or subresource."""
        return await self.request("POST", path, body=body, params=params)

    async def replace(self, path: str, body: Object, **params: str) -> Object:
        """PUT; with `metadata.resourceVersion` in the body another writer's change makes it a conflict."""
        return await self.request("PUT", path, body=body, params=params)

    async def patch(
        self, path: str, body: Object | Sequence[Object], *, content_type: str = MERGE_PATCH, **params: str
    ) -> Object:
        """PATCH; a merge patch (RFC 7396) unless another content type is named."""
        return await self.request("PATCH", path, body=body, params=params, content_type=content_type)

    async def delete(self, path: str, *, body: Object | None = None, **params: str) -> Object:
        """DELETE; `body` may be DeleteOptions."""
        return await self.request("DELETE", path, body=body, params=params)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Object | Sequence[Object] | None = None,
        params: Mapping[str, str] | None = None,
        content_type: str = JSON,
        timeout: float = REQUEST_TIMEOUT,
    ) -> Object:
        """One request and its whole answer. Raises `ApiError` or `Unreachable`."""
        return _document(await self._exchange(method, path, body, params, content_type, timeout))

    async def text(self, path: str, **params: str) -> str:
        """GET something that is not JSON, such as a container's log."""
        return (await self._exchange("GET", path, None, params, JSON, REQUEST_TIMEOUT)).decode(errors="replace")

    async def _exchange(
        self,
        method: str,
        path: str,
        body: Object | Sequence[Object] | None,
        params: Mapping[str, str] | None,
        content_type: str,
        timeout: float,
    ) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": content_type} if data is not None else {}
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_TIMEOUT)
        try:
            async with await self._send(
                method, path, patience=timeout, limits=limits, data=data, params=params, headers=headers
            ) as response:
                answer = await response.read()
                if response.status >= 300:
                    raise from_response(response.status, answer)
                return answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _send(
        self,
        method: str,
        path: str,
        *,
        patience: float,
        limits: aiohttp.ClientTimeout,
        data: bytes | None = None,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> aiohttp.ClientResponse:
        """The response, once its head is there: `patience` seconds for that. A 401 is tried once more when somebody
        has logged in again meanwhile, or a plugin does."""
        grant = await self._login.current()
        response = await self._send_as(grant, method, path, patience, limits, data, params, headers)
        if response.status == 401:
            async with asyncio.timeout(patience):
                await response.read()  # its connection is free then, and callers still get what it says
            if await self._login.refused(grant):
                grant = await self._login.current()
                response = await self._send_as(grant, method, path, patience, limits, data, params, headers)
        return response

    async def _send_as(
        self,
        grant: Grant,
        method: str,
        path: str,
        patience: float,
        limits: aiohttp.ClientTimeout,
        data: bytes | None,
        params: Mapping[str, str] | None,
        more: Mapping[str, str] | None,
    ) -> aiohttp.ClientResponse:
        if (grant.certificate, grant.key) != (self._shown.certificate, self._shown.key):
            self._ssl = self._make_ssl(grant)
            self._shown = grant
        headers = {"Accept": JSON, "User-Agent": "tpctl", **(more or {})}
        if grant.authorization:
            headers["Authorization"] = grant.authorization
        async with asyncio.timeout(patience):
            return await self._http.request(
                method,
                self.server + path,
                data=data,
                params=params or None,
                headers=[*headers.items(), *self._credentials.impersonation],
                timeout=limits,
                ssl=self._ssl or False,
                server_hostname=self._credentials.server_name,
            )

    def _make_ssl(self, grant: Grant) -> ssl.SSLContext | None:
        return client_context(self._credentials, grant) if self.server.startswith("https") else None

    async def watch(
        self,
        path: str,
        *,
        resource_version: str,
        timeout: float = 290.0,
        params: Mapping[str, str] | None = None,
    ) -> AsyncIterator[tuple[str, Object]]:
        """Changes since `resource_version` as (ADDED | MODIFIED | DELETED | BOOKMARK, object).

        Ends after about `timeout` seconds, or when the server ends it. `ApiError.gone`: list again. `Unreachable` also
        when nothing comes for `WATCH_SILENCE`.
        """
        query = {
            **(params or {}),
            "watch": "1",
            "allowWatchBookmarks": "1",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(max(1, int(timeout))),
        }
        limits = aiohttp.ClientTimeout(total=timeout + 10, sock_connect=CONNECT_TIMEOUT, sock_read=WATCH_SILENCE)
        response = None
        try:
            response = await self._send("GET", path, patience=REQUEST_TIMEOUT, limits=limits, params=query)
            async with response:
                if response.status >= 300:
                    raise from_response(response.status, await response.read())
                self._watches.add(response)
                async for line in _lines(response.content):
                    event = _document(line)
                    kind, found = str(event.get("type")), event.get("object") or {}
                    if kind == "ERROR":
                        raise from_status(found)
                    yield kind, found
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error
        finally:
            if response is not None:
                self._watches.discard(response)

    async def upgrade(self, path: str, *, protocol: str, params: Mapping[str, str] | None = None) -> Upgraded:
        """Open a WebSocket that speaks `protocol`, as bare bytes. Raises `ApiError` when the server refuses."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)
        headers = upgrade_headers(protocol)
        try:
            response = await self._send(
                "GET", path, patience=CONNECT_TIMEOUT, limits=limits, params=params, headers=headers
            )
            if response.status == 101:
                return Upgraded(response)
            async with response, asyncio.timeout(CONNECT_TIMEOUT):
                raise from_response(response.status if response.status >= 300 else 400, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    def _unreachable(self, error: BaseException) -> Unreachable:
        where = f"{self.server} (through the proxy {shown(self.proxy)})" if self.proxy else self.server
        if isinstance(error, TimeoutError):
            return Unreachable(f"the API server {where} did not answer in time")
        if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
            reason = re.search(r"certificate verify failed: ([^(\])]+)", str(error))
            why = reason[1].strip() if reason else str(error)
            return Unreachable(f"the certificate of the API server {where} is not trusted: {why}")
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return Unreachable(f"the API server {where} cannot be reached: {text}")


async def from_kubeconfig(
    environment: Mapping[str, str],
    *,
    paths: Sequence[str] = (),
    context: str = "",
    resolve: Resolve | None = None,
) -> Api:
    """Make an `Api` from kubeconfig files; credential plugins run here, as this process's user.

    `resolve`: see `Api`. Raises `KubeconfigError`.
    """
    files = paths_from(environment, paths)
    return await logged_in(load(files, context), environment, files, resolve=resolve)


async def logged_in(
    credentials: Credentials,
    environment: Mapping[str, str],
    files: Sequence[Path],
    *,
    resolve: Resolve | None = None,
) -> Api:
    """The same with what was read of the files already; they are read again when the server refuses it."""
    credentials = replace(credentials, proxy=proxy_of(credentials, environment))
    login = Login(credentials, environment, lambda: load(files, credentials.context))
    try:
        await login.current()
        return Api(credentials, login=login, resolve=resolve)
    except BaseException:
        await login.close()
        raise


def in_cluster(environment: Mapping[str, str] = os.environ) -> Api:
    """Make an `Api` from the pod's ServiceAccount (projected token, read again as it rotates)."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeconfigError("not inside a cluster: KUBERNETES_SERVICE_HOST is not set")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    try:
        ca = (_SERVICE_ACCOUNT / "ca.crt").read_bytes()
        namespace = (_SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise KubeconfigError(f"the pod has no ServiceAccount token mounted: {error}") from error
    return Api(
        Credentials(
            context="in-cluster",
            namespace=namespace,
            server=server,
            ca=ca,
            token_file=str(_SERVICE_ACCOUNT / "token"),
        )
    )


def _document(data: bytes) -> Object:
    try:
        document = json.loads(data) if data else {}
    except ValueError as error:
        raise KubeError("the API server's answer is not JSON; is this really a Kubernetes API?") from error
    if not isinstance(document, dict):
        raise KubeError("the API server's answer is not an object; is this really a Kubernetes API?")
    return document


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length up to a bound; aiohttp's own reader refuses long ones."""
    waiting = bytearray()
    async for chunk in content.iter_any():
        waiting += chunk
        while (end := waiting.find(b"\n")) >= 0:
            line = bytes(waiting[:end])
            del waiting[: end + 1]
            if line:
                yield line
        if len(waiting) > _LONGEST_WATCH_LINE:
            raise KubeError("an object in the watch is too large")
