"""Giving back everything that is replaced, before the traffic-manager is uninstalled:
`python -I -m tpd.session.release --namespace NS --timeout S [--kubeconfig F] [--context C]`.

A program of its own because the CLI imports no Kubernetes client. Prints JSON lines {"state", "text"} with state
waiting, ready or failed; ends with 0 or 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from typing import Any

from tpd.session.errors import SessionError, from_kube
from tpd.session.kube import paths
from tunnel.agentconfig import ANNOTATION
from tunnel.kube.api import Api, from_kubeconfig
from tunnel.kube.errors import ApiError, KubeError

Object = dict[str, Any]

_LOOK_EVERY = 1.0


async def release(api: Api, namespace: str, limit: float) -> None:
    """End every engagement of the manager in `namespace` and wait until no pod has its agent any more.

    Sessions stay: a laptop whose session ends makes a new one and asks for its containers again.
    Raises `SessionError` after `limit` seconds, `KubeError`.
    """
    for item in await _list(api, paths.ALL_ENGAGEMENTS):
        if ((item.get("spec") or {}).get("session") or {}).get("namespace") == namespace:
            name, where = item["metadata"]["name"], item["metadata"]["namespace"]
            _say("waiting", f"ending the engagement {name} in namespace {where}")
            await _delete(api, paths.engagements(where, name))
    alone = not await _manager_works(api, namespace)
    loop = asyncio.get_running_loop()
    deadline, evicted = loop.time() + limit, set[str]()
    left = await _with_agent(api, namespace)
    while left:
        names = ", ".join(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}" for pod in left)
        if loop.time() > deadline:
            raise SessionError(
                f"these pods still have an agent instead of their own containers: {names}; delete them yourself,"
                " or uninstall without giving back: --no-release"
            )
        _say("waiting", f"waiting for the original containers of {names}")
        if alone:  # nobody else does it; and without a manager nobody injects an agent into the successors
            for pod in left:
                if pod["metadata"]["uid"] not in evicted and await _evict(api, pod):
                    evicted.add(pod["metadata"]["uid"])
        await asyncio.sleep(_LOOK_EVERY)
        # The whole cluster's pods are many: they are listed again only when of those found before none is left.
        now = await asyncio.gather(*(_again(api, pod) for pod in left))
        left = [pod for pod in now if pod is not None and has_agent(pod, namespace)]
        left = left or await _with_agent(api, namespace)
    _say("ready", "nothing is replaced any more")


def has_agent(pod: Object, namespace: str) -> bool:
    """Pure. Whether the pod stays and has an agent of the manager in `namespace`."""
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp"):
        return False
    try:
        config = json.loads((metadata.get("annotations") or {}).get(ANNOTATION, "{}"))
        return bool(config["manager"]["namespace"] == namespace)
    except (ValueError, KeyError, TypeError):
        return False


async def _with_agent(api: Api, namespace: str) -> list[Object]:
    return [pod for pod in await _list(api, paths.ALL_PODS) if has_agent(pod, namespace)]


async def _again(api: Api, pod: Object) -> Object | None:
    metadata = pod["metadata"]
    try:
        return await api.get(paths.pods(metadata["namespace"], metadata["name"]))
    except ApiError as error:
        if error.not_found:
            return None
        raise


async def _manager_works(api: Api, namespace: str) -> bool:
    try:
        deployment = await api.get(paths.workloads("Deployment", namespace, paths.MANAGER_NAME))
    except ApiError as error:
        if error.not_found:
            return False
        raise
    return bool((deployment.get("status") or {}).get("availableReplicas"))


async def _evict(api: Api, pod: Object) -> bool:
    metadata = pod["metadata"]
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
        "deleteOptions": {"preconditions": {"uid": metadata["uid"]}},
    }
    try:
        await api.create(f"{paths.pods(metadata['namespace'], metadata['name'])}/eviction", body)
    except ApiError as error:
        if error.not_found or error.conflict:
            return True
        if error.retryable:  # a disruption budget, perhaps for a moment only
            return False
        raise
    return True


async def _list(api: Api, path: str) -> list[Object]:
    try:
        return list((await api.list(path)).get("items") or [])
    except ApiError as error:
        if error.not_found:  # the cluster does not have the resource any more
            return []
        raise


async def _delete(api: Api, path: str) -> None:
    try:
        await api.delete(path)
    except ApiError as error:
        if not error.not_found:
            raise


def _say(state: str, text: str) -> None:
    sys.stdout.write(json.dumps({"state": state, "text": text}) + "\n")
    sys.stdout.flush()


async def _main(options: argparse.Namespace) -> None:
    async with await from_kubeconfig(os.environ, paths=options.kubeconfig, context=options.context) as api:
        await release(api, options.namespace, options.timeout)


def main() -> int:
    parser = argparse.ArgumentParser(description="Give back everything that is replaced.")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--kubeconfig", action="append", default=[])
    parser.add_argument("--context", default="")
    try:
        asyncio.run(_main(parser.parse_args()))
    except SessionError as error:
        _say("failed", error.text)
        return 1
    except KubeError as error:
        _say("failed", from_kube(error, "giving back what is replaced").text)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
