"""HTTPS in front of `admission`: finds the pod's workload and what is wished for it; never blocks, fails open."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import ssl
import tempfile
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from manager import pki
from manager.kube.owners import Owners
from manager.registry import Wishes
from manager.state.injection import Wish
from manager.webhook.admission import answer, let_in
from manager.wish import WishMaker
from tunnel.kube.errors import KubeError

log = logging.getLogger(__name__)

_LONGEST = 2.0
"""Seconds to find the pod's workload; the API server waits five for all."""
_LARGEST = 4 * 1024 * 1024
"""Bytes of a review; the API server takes requests of 3 MiB, etcd objects of 1.5 MiB."""
_READ_WITHIN = 5.0
"""Seconds for a review to arrive: the API server waits no longer for the answer."""


class Injector:
    """The webhook's handler."""

    def __init__(self, owners: Owners, wishes: Wishes, wish_for: WishMaker) -> None:
        self._owners = owners
        self._wishes = wishes
        self._wish_for = wish_for

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=_LARGEST)
        app.router.add_post("/inject", self._inject)
        return app

    async def _inject(self, http: web.Request) -> web.Response:
        if http.content_length is None or http.content_length > _LARGEST:
            return web.Response(status=413, text="not a review of an API server\n")
        try:
            async with asyncio.timeout(_READ_WITHIN):
                review = json.loads(await http.read())
            request = review["request"]
            if not isinstance(request, dict):
                raise TypeError("request is no object")
        except ConnectionError as error:
            # aiohttp keeps the error, the error its traceback, and that all that was read: break the circle at once.
            error.__traceback__ = None
            return web.Response(status=400)
        except TimeoutError:
            return web.Response(status=408, text="the review did not arrive in time\n")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            return web.Response(status=400, text=f"not an AdmissionReview: {error}\n")
        # A plain body goes out in one write with its header; a second one costs 40 ms of delayed acknowledgement.
        return web.Response(body=json.dumps(await self._review(request)).encode(), content_type="application/json")

    async def _review(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if (request.get("kind") or {}).get("kind") != "Pod" or request.get("operation") != "CREATE":
            return answer(request, None)
        try:
            async with asyncio.timeout(_LONGEST):
                wish = await self._wish(request)
            return answer(request, wish)
        except (KubeError, TimeoutError) as error:
            log.warning("let a pod in without looking: %s", error)
            return let_in(request, f"the pod's workload could not be found: {error}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # A pod of a shape we do not expect must still start.
            log.exception("cannot inject into a pod")
            return let_in(request, f"the pod could not be understood: {error}")

    async def _wish(self, request: Mapping[str, Any]) -> Wish | None:
        namespace = str(request.get("namespace", ""))
        if namespace not in self._wishes.namespaces():
            return None
        target = await self._owners.target_of(namespace, request.get("object") or {})
        wanted = self._wishes.of(target) if target is not None else None
        if target is None or wanted is None:
            return None
        return dataclasses.replace(self._wish_for(target), containers=wanted.containers, ports=wanted.ports)


def tls_context(pair: pki.ServingPair) -> ssl.SSLContext:
    """A server context for this pair."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    reload_pair(context, pair)
    return context


def reload_pair(context: ssl.SSLContext, pair: pki.ServingPair) -> None:
    """New connections use this pair. The ssl module loads keys from files only: a private one, gone at once."""
    with tempfile.NamedTemporaryFile(prefix="tpctl-", dir="/dev/shm") as file:
        file.write(pair.key_pem + b"\n" + pair.chain_pem)
        file.flush()
        context.load_cert_chain(file.name)
