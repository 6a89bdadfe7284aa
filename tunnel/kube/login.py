"""Staying logged in: what proves who we are is renewed when it ends, or when the server takes it no more."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from tunnel.aio.backoff import Backoff
from tunnel.kube import exec_plugin
from tunnel.kube.errors import KubeconfigError
from tunnel.kube.grant import Grant
from tunnel.kube.kubeconfig import Credentials

FIRST_LIMIT = 180.0
"""Seconds that a credential plugin has when the user waits for it: a person may have to log in with a browser."""
LIMIT = 60.0
"""Seconds that it has later on."""
_TOKEN_FILE_LIFE = 60.0
"""Seconds for which a token from a file is used before it is read again."""
_AFTER_FAILURE = 10.0
"""Seconds until a plugin that failed runs again, at most: it may only have missed the network."""
_BETWEEN = 30.0
"""Seconds from one renewal to the next that is not due: a server that takes no proof must not keep a plugin busy."""


class Login:
    """`current()` is what to prove ourselves with. `reread` gives the credentials as they are now on disk."""

    def __init__(
        self,
        credentials: Credentials,
        environment: Mapping[str, str] = os.environ,
        reread: Callable[[], Credentials] | None = None,
    ) -> None:
        self._credentials = credentials
        self._environment = environment
        self._reread = reread
        self.grant = _on_hand(credentials)
        """The newest; it may have expired."""
        self._renewal: asyncio.Task[None] | None = None
        self._renewed = False
        self._failure = ""
        self._pauses = Backoff(2.0, _AFTER_FAILURE, random.random)
        self._not_before = float("-inf")

    async def current(self) -> Grant:
        """What is good now. Raises `KubeconfigError`, with the words of a plugin that failed."""
        if self.grant.expires is not None and time.time() >= self.grant.expires:
            await self._renew()
        return self.grant

    async def refused(self, grant: Grant) -> bool:
        """The server did not accept it (401). True: there is another one now. Raises `KubeconfigError`."""
        if grant is self.grant:
            await self._renew(reread=True)
        return self.grant != grant

    async def close(self) -> None:
        """End a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])

    async def _renew(self, *, reread: bool = False) -> None:
        """One for all who wait; it goes on when they do not."""
        loop = asyncio.get_running_loop()
        if self._renewal is None and loop.time() >= self._not_before:
            self._renewal = loop.create_task(self._run(reread), name="login.renewal")
        if (renewal := self._renewal) is not None:
            await asyncio.wait([renewal])
            if not renewal.cancelled():
                renewal.result()
        if self._failure:
            raise KubeconfigError(self._failure)

    async def _run(self, reread: bool) -> None:
        pause = 0.0
        try:
            if reread:
                self._read_again()
            self.grant = await self._ask()
            self._failure, self._renewed, pause = "", True, _BETWEEN
            self._pauses.reset()
        except KubeconfigError as error:
            self._failure, pause = str(error), self._pauses.next()
        finally:
            self._not_before = asyncio.get_running_loop().time() + pause
            self._renewal = None

    def _read_again(self) -> None:
        if self._reread is None:
            return
        try:
            found = self._reread()
        except KubeconfigError:
            return  # it is being written, or gone: what we know may still do
        if found.server == self._credentials.server:  # a proof is for one server only
            self._credentials = found

    async def _ask(self) -> Grant:
        credentials = self._credentials
        grant = _on_hand(credentials)
        if credentials.token_file:
            token, expires = _token(credentials.token_file), time.time() + _TOKEN_FILE_LIFE
            return Grant(token=token, certificate=grant.certificate, key=grant.key, expires=expires)
        if credentials.exec_plugin is not None:
            limit = LIMIT if self._renewed else FIRST_LIMIT
            given = await exec_plugin.run(credentials.exec_plugin, self._environment, limit)
        elif credentials.auth_provider is not None:
            from tunnel.kube import auth_provider  # the import alone costs half a second

            given = await auth_provider.ask(credentials.auth_provider)
        else:
            return grant
        if given.certificate is None and grant.certificate is not None:
            return Grant(token=given.token, certificate=grant.certificate, key=grant.key, expires=given.expires)
        return given


def _on_hand(credentials: Credentials) -> Grant:
    """What the kubeconfig itself holds; expired if more has to be asked for."""
    ask = credentials.token_file or credentials.exec_plugin or credentials.auth_provider
    return Grant(
        token=credentials.token,
        basic=credentials.basic,
        certificate=credentials.certificate,
        key=credentials.key,
        expires=float("-inf") if ask else None,
    )


def _token(path: str) -> str:
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise KubeconfigError(f"cannot read the token file {path}") from error
    if not token.isprintable():
        raise KubeconfigError(f"the token file {path} has line breaks or control characters in its token")
    return token
