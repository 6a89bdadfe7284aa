"""One authenticated connection pool to one API server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from tunnel.kube.errors import KubeconfigError, KubeError, Unreachable, from_response, from_status
from tunnel.kube.kubeconfig import Credentials, load, paths_from
from tunnel.kube.proxy import proxy_of, shown
from tunnel.kube.resolver import LastGoodResolver, Resolve
from tunnel.kube.sockets import watchful_socket
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
_TOKEN_LIFE = 60.0
"""Seconds for which a token read from a file or plugin is used before it is read again."""


class Api:
    """Requests to one API server as one user. Paths start with `/`; bodies and answers are dictionaries.

    `resolve(host)` gives the addresses of the server's and the proxy's name (`tunnel.kube.resolver.Resolve`); without
    it the system's resolver is asked. The last good addresses are used while it fails.
    """

    def __init__(self, credentials: Credentials, *, resolve: Resolve | None = None) -> None:
        self._credentials = credentials
        self.server = credentials.server
        self.context = credentials.context
        self.namespace = credentials.namespace
        self.proxy = credentials.proxy
        self._ssl = _ssl_context(credentials) if self.server.startswith("https") else None
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._token = credentials.token
        self._token_read = float("-inf")
        self._plugin: Any = None
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
        if self._session is not None:
            await self._session.close()

    def start_afresh(self) -> None:
        """The way to the server has changed: end every watch (`Unreachable`), and use no idle connection again.

        What is under way otherwise, port-forwards above all, goes on.
        """
        for response in self._watches:
            response.close()
        if self._ssl is not None:
            # Connections of another context are not taken from the pool, which closes them when they were idle enough.
            self._ssl = _ssl_context(self._credentials)

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
        headers = await self._headers()
        if data is not None:
            headers["Content-Type"] = content_type
        try:
            async with (
                asyncio.timeout(timeout),
                self._http.request(
                    method,
                    self.server + path,
                    data=data,
                    params=params or None,
                    headers=headers,
                    ssl=self._ssl or False,
                    server_hostname=self._credentials.server_name,
                ) as response,
            ):
                answer = await response.read()
                if response.status >= 300:
                    raise from_response(response.status, answer)
                return answer
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

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
        headers = await self._headers()
        response = None
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                response = await self._http.get(
                    self.server + path,
                    params=query,
                    headers=headers,
                    timeout=aiohttp.ClientTimeout(
                        total=timeout + 10, sock_connect=CONNECT_TIMEOUT, sock_read=WATCH_SILENCE
                    ),
                    ssl=self._ssl or False,
                    server_hostname=self._credentials.server_name,
                )
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
        headers = {**await self._headers(), **upgrade_headers(protocol)}
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                response = await self._http.get(
                    self.server + path,
                    params=params,
                    headers=headers,
                    ssl=self._ssl or False,
                    server_hostname=self._credentials.server_name,
                )
                if response.status == 101:
                    return Upgraded(response)
                async with response:
                    raise from_response(response.status if response.status >= 300 else 400, await response.read())
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise self._unreachable(error) from error

    async def _headers(self) -> dict[str, str]:
        headers = {"Accept": JSON, "User-Agent": "tpctl"}
        credentials = self._credentials
        now = asyncio.get_running_loop().time()
        if (credentials.plugin or credentials.token_file) and now - self._token_read > _TOKEN_LIFE:
            self._token_read = now
            if credentials.token_file:
                try:
                    self._token = Path(credentials.token_file).read_text(encoding="utf-8").strip()
                except OSError as error:
                    raise KubeconfigError(f"cannot read the token file {credentials.token_file}") from error
            elif self._plugin is not None:
                self._token = await self._plugin.token()
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        elif credentials.basic:
            headers["Authorization"] = f"Basic {credentials.basic}"
        return headers

    def use_plugin(self, plugin: Any) -> None:
        """Renew the token through `plugin.token()` (a credential plugin's adapter)."""
        self._plugin = plugin

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

    `resolve`: see `Api`.
    """
    files = paths_from(environment, paths)
    credentials = load(files, context)
    credentials = replace(credentials, proxy=proxy_of(credentials, environment))
    if not credentials.plugin:
        return Api(credentials, resolve=resolve)
    from tunnel.kube.plugin import CredentialPlugin

    plugin = CredentialPlugin(files, credentials.context)
    token, certificate, key = await plugin.load()
    api = Api(
        replace(
            credentials,
            token=token,
            certificate=certificate or credentials.certificate,
            key=key or credentials.key,
        ),
        resolve=resolve,
    )
    api.use_plugin(plugin)
    return api


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


def _ssl_context(credentials: Credentials) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cadata=credentials.ca.decode() if credentials.ca else None)
        if credentials.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if credentials.certificate and credentials.key:
            # The ssl module loads certificates from files only; an unlinked-at-once private file is the least.
            with tempfile.NamedTemporaryFile(prefix="tpctl-") as pair:
                pair.write(credentials.certificate + b"\n" + credentials.key)
                pair.flush()
                context.load_cert_chain(pair.name)
    except (ssl.SSLError, ValueError) as error:
        raise KubeconfigError(f"the certificates of context {credentials.context!r} cannot be used: {error}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


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
