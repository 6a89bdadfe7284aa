"""Finding the traffic-manager while its last pod is on its way out."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import web

from tpd.session.errors import SessionError
from tpd.session.kube import manager, paths
from tunnel.kube.api import Api
from tunnel.testing.api_server import serving

GOING = {"metadata": {"name": "traffic-manager-1", "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {}}
SERVICE = {"metadata": {"name": "traffic-manager", "namespace": paths.MANAGER_NAMESPACE}}


def _said(pods: list[dict[str, Any]], services: list[dict[str, Any]] | None, wanted: str = "") -> str:
    """What `find` says where these are all there is; None: the user may not list Services."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != paths.SERVICES:
            return web.json_response({"items": pods})
        if services is None:
            return web.json_response({"reason": "Forbidden", "code": 403, "message": "no"}, status=403)
        return web.json_response({"items": services})

    async def find() -> str:
        async with serving(answer) as credentials, Api(credentials) as api:
            with pytest.raises(SessionError) as refused:
                await manager.find(api, wanted)
            return refused.value.text

    return asyncio.run(find())


@pytest.mark.parametrize("wanted", ["", paths.MANAGER_NAMESPACE])
def test_of_one_that_was_uninstalled_a_moment_ago_there_is_none(wanted: str) -> None:
    assert "install it" in _said([GOING], [], wanted)


@pytest.mark.parametrize("wanted", ["", paths.MANAGER_NAMESPACE])
@pytest.mark.parametrize("services", [[SERVICE], None])
def test_one_that_is_being_replaced_is_not_ready(services: list[dict[str, Any]] | None, wanted: str) -> None:
    assert "pod traffic-manager-1 is being deleted" in _said([GOING], services, wanted)


@pytest.mark.parametrize("wanted", ["", paths.MANAGER_NAMESPACE])
def test_one_without_pods_says_where_to_look(wanted: str) -> None:
    assert "kubectl -n tpctl-system get deploy,rs" in _said([], [SERVICE], wanted)
