"""Waiting for a Deployment: `python -I -m tpd.session.rollout --namespace NS --deployment NAME --timeout S`.

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
from tpd.session.rollout_reason import (
    BAD_SIGNS,
    HOPELESS,
    is_rolled_out,
    last_line,
    newest_first,
    why_waiting,
)
from tunnel.kube.api import Api, from_kubeconfig
from tunnel.kube.errors import ApiError, KubeError

Object = dict[str, Any]

_LOOK_EVERY = 0.3
_PATIENCE = 20.0
"""Seconds for which an image that cannot be pulled or a crashing container is watched before giving up."""


def main(arguments: list[str] | None = None) -> int:
    """Wait, telling what for."""
    parser = argparse.ArgumentParser(prog="tpd.session.rollout")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--deployment", default=paths.MANAGER_NAME)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--kubeconfig", default="")
    parser.add_argument("--context", default="")
    options = parser.parse_args(arguments)
    try:
        asyncio.run(_wait(options))
    except SessionError as error:
        _say("failed", error.text)
        return 1
    except KubeError as error:
        _say("failed", from_kube(error, f"watching deployment {options.deployment}").text)
        return 1
    except KeyboardInterrupt:
        return 1
    return 0


def _say(state: str, text: str) -> None:
    sys.stdout.write(json.dumps({"state": state, "text": text}) + "\n")
    sys.stdout.flush()


async def _wait(options: argparse.Namespace) -> None:
    files = [options.kubeconfig] if options.kubeconfig else []
    api = await from_kubeconfig(os.environ, paths=files, context=options.context)
    async with api:
        loop = asyncio.get_running_loop()
        deadline, doubtful_since, said = loop.time() + options.timeout, None, ""
        while True:
            deployment, pods = await _look(api, options.namespace, options.deployment)
            if is_rolled_out(deployment):
                _say("ready", f"{options.deployment} in namespace {options.namespace} is ready")
                return
            reason, text = why_waiting(deployment, pods)
            if text != said:
                said = text
                _say("waiting", text)
            now = loop.time()
            doubtful_since = (doubtful_since or now) if reason in BAD_SIGNS else None
            hopeless = reason in HOPELESS or (doubtful_since is not None and now - doubtful_since > _PATIENCE)
            if hopeless or now > deadline:
                text = await _with_log(api, options.namespace, reason, text, pods)
                raise SessionError(text if hopeless else f"not ready after {options.timeout:.0f} s: {text}")
            await asyncio.sleep(_LOOK_EVERY)


async def _look(api: Api, namespace: str, name: str) -> tuple[Object, list[Object]]:
    try:
        deployment = await api.get(paths.workloads("Deployment", namespace, name))
    except ApiError as error:
        if error.not_found:
            raise SessionError(f"namespace {namespace} has no deployment {name}") from error
        raise
    labels = deployment["spec"]["selector"].get("matchLabels") or {}
    selector = ",".join(f"{key}={value}" for key, value in labels.items())
    found = await api.list(paths.pods(namespace), labelSelector=selector)
    return deployment, newest_first(found.get("items") or [])


async def _with_log(api: Api, namespace: str, reason: str, text: str, pods: list[Object]) -> str:
    """The last line that a crashing container wrote says more than its exit status."""
    if reason != "CrashLoopBackOff" or not pods:
        return text
    try:
        log = await api.text(
            f"{paths.pods(namespace, pods[0]['metadata']['name'])}/log", previous="true", tailLines="20"
        )
    except KubeError:
        return text
    line = last_line(log)
    return f"{text}; its last words: {line}" if line else text


if __name__ == "__main__":
    sys.exit(main())
