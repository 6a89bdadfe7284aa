"""Looking up workloads and what engages them."""

from __future__ import annotations

import asyncio
from typing import Any

from tpd.session import errors
from tpd.session.engagements import workload as pure
from tpd.session.errors import SessionError
from tpd.session.kube import paths
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError

Object = dict[str, Any]


async def find(api: Api, namespace: str, text: str) -> Object:
    """The workload `NAME` or `KIND/NAME`, with its `kind` set. One round trip. Raises `SessionError`."""
    kind, name = pure.split(text)
    kinds = [kind] if kind else list(paths.WORKLOADS)
    found = [w for w in await asyncio.gather(*(_get(api, k, namespace, name) for k in kinds)) if w is not None]
    if not found:
        raise pure.unknown(text, namespace, [w["metadata"]["name"] for w in await list_all(api, namespace)])
    if len(found) > 1:
        names = " or ".join(f"{w['kind'].lower()}/{name}" for w in found)
        raise SessionError(f"{name!r} is the name of several workloads; say which: {names}")
    return found[0]


async def _get(api: Api, kind: str, namespace: str, name: str) -> Object | None:
    try:
        workload = await api.get(paths.workloads(kind, namespace, name))
    except ApiError as error:
        if error.not_found:
            return None
        raise errors.from_kube(error, f"looking for {kind} {name} in namespace {namespace}") from error
    except KubeError as error:
        raise errors.from_kube(error, f"looking for {kind} {name} in namespace {namespace}") from error
    return {**workload, "kind": kind}


async def list_all(api: Api, namespace: str) -> list[Object]:
    """Every workload of `namespace` that is not another's, with `kind` set, by kind and name. Raises `SessionError`."""
    try:
        answers = await asyncio.gather(*(api.list(paths.workloads(kind, namespace)) for kind in paths.WORKLOADS))
    except KubeError as error:
        raise errors.from_kube(error, f"listing the workloads of namespace {namespace}") from error
    return [
        {**item, "kind": kind}
        for kind, answer in zip(paths.WORKLOADS, answers, strict=True)
        for item in answer.get("items") or []
        if not pure.is_owned(item)
    ]


async def engagements_of(api: Api, namespace: str) -> list[Object]:
    """The engagements in `namespace` that hold a container now. Raises `SessionError`."""
    try:
        answer = await api.list(paths.engagements(namespace))
    except ApiError as error:
        if error.not_found or error.forbidden:
            return []  # seeing who is engaged is a courtesy; listing workloads works without it
        raise errors.from_kube(error, f"listing the engagements of namespace {namespace}") from error
    except KubeError as error:
        raise errors.from_kube(error, f"listing the engagements of namespace {namespace}") from error
    return [
        item for item in answer.get("items") or [] if (item.get("status") or {}).get("phase") in ("Accepted", "Active")
    ]
