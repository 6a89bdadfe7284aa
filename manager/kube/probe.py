"""Does the API server keep false names out? Asked with dry runs, before anything is accepted and ever again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from manager.config import SERVICE, Config
from manager.kube import paths
from manager.state.model import parse_time
from manager.state.policy import PolicyWatch, last_change
from tunnel.kube.api import Api, Object
from tunnel.kube.errors import ApiError, KubeError

log = logging.getLogger(__name__)

FALSE_NAME = "tpctl:nobody"
"""No user of a cluster: the API server must refuse objects under this name."""

_SOON = 0.1
_LATER = 30.0


class PolicyProbe:
    """Keeps a `PolicyWatch` true. `on_change` is called when acceptance begins or stops."""

    def __init__(self, api: Api, config: Config, on_change: Callable[[], None]) -> None:
        self._api = api
        self._config = config
        self._on_change = on_change
        self._complained = ""
        self.watch = PolicyWatch()
        self.works = asyncio.Event()
        """Set once the policies have been seen to work."""

    async def run(self) -> None:
        """Probe until cancelled."""
        pause = _SOON
        while True:
            before = self.watch.works_since
            try:
                problem = await self._probe()
            except KubeError as error:
                # Nothing new can have been created behind an API server that does not answer.
                log.info("cannot ask whether false names are refused: %s", error)
                pause = min(pause * 2, 2.0)
            else:
                if problem and problem != self._complained:
                    log.warning("accepting nothing: %s", problem)
                elif not problem and before is None:
                    log.info("false names are refused: accepting sessions and engagements")
                self._complained = problem
                if problem:
                    self.watch.admitted()
                    pause = min(pause * 1.5, 2.0)
                else:
                    self.works.set()
                    pause = _LATER
            if before != self.watch.works_since:
                self._on_change()
            await asyncio.sleep(pause)

    async def _probe(self) -> str:
        """Empty when the policies work, else what is wrong."""
        changed = last_change([await self._policy("policies"), await self._policy("policybindings")])
        namespace = self._config.namespace
        for path, body in (
            (paths.sessions(namespace), _session(FALSE_NAME)),
            (paths.engagements(namespace), _engagement(FALSE_NAME)),
        ):
            try:
                await self._api.create(path, body, dryRun="All")
            except ApiError as error:
                if error.forbidden and self._config.policy in error.message:
                    continue
                if error.retryable:
                    raise
                return f"the false name was not refused by the policy {self._config.policy}, but: {error}"
            return f"the API server lets a false name into {path.rsplit('/', 1)[1]}; is the policy installed?"
        own = f"system:serviceaccount:{namespace}:{SERVICE}"
        honest = await self._api.create(paths.sessions(namespace), _session(own), dryRun="All")
        self.watch.refused(changed, parse_time(honest["metadata"].get("creationTimestamp")))
        return ""

    async def _policy(self, resource: str) -> Object:
        try:
            return await self._api.get(f"{paths.ADMISSION}/validatingadmission{resource}/{self._config.policy}")
        except ApiError as error:
            if error.not_found:
                return {}
            raise


def _session(user: str) -> Object:
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Session",
        "metadata": {"generateName": "probe-"},
        "spec": {"user": user, "client": {"host": "probe"}, "publicKey": "probe", "namespace": "default"},
    }


def _engagement(user: str) -> Object:
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Engagement",
        "metadata": {"generateName": "probe-"},
        "spec": {
            "user": user,
            "session": {"namespace": "default", "name": "probe", "uid": "probe"},
            "mode": "Replace",
            "workload": {"kind": "Deployment", "name": "probe"},
            "container": "probe",
            "ports": [],
        },
    }
