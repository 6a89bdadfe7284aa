"""Does the API server keep false names out? Asked with dry runs, before anything is accepted and ever again."""

from __future__ import annotations

import asyncio
import contextlib
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
_LONGEST = 2.0
_LATER = 30.0


class PolicyProbe:
    """Keeps a `PolicyWatch` true. `on_change` is called when acceptance begins or stops."""

    def __init__(self, api: Api, config: Config, on_change: Callable[[], None]) -> None:
        self._api = api
        self._config = config
        self._on_change = on_change
        self._complained = ""
        self._one_at_a_time = asyncio.Lock()
        self.watch = PolicyWatch()
        self.works = asyncio.Event()
        """Set once an object created now would be accepted."""
        self._failing = asyncio.Event()
        """Set while a false name was let in the last time."""

    async def run(self) -> None:
        """Probe until cancelled."""
        pause = _SOON
        while True:
            if await self.confirm() and self.watch.works_since is not None and self.works.is_set():
                pause = _SOON
                with contextlib.suppress(TimeoutError):  # whoever else asks may see them fail meanwhile
                    await asyncio.wait_for(self._failing.wait(), _LATER)
            else:
                pause = min(pause * 1.5, _LONGEST)
                await asyncio.sleep(pause)

    async def confirm(self) -> bool:
        """Probe once, now. Before anything is accepted: the policies may have gone since the last time.

        False when the API server cannot be asked; what was known stays then, for nothing new can have been created.
        """
        async with self._one_at_a_time:
            before = self.watch.works_since
            try:
                problem = await self._probe()
            except KubeError as error:
                log.info("cannot ask whether false names are refused: %s", error)
                return False
            if problem:
                self.watch.admitted()
                self._failing.set()
                if problem != self._complained:
                    log.warning("accepting nothing: %s", problem)
            else:
                self._failing.clear()
                if before is None:
                    log.info("false names are refused: accepting sessions and engagements")
            self._complained = problem
            if before != self.watch.works_since:
                self._on_change()  # whoever asked: what waits for it is judged now
            return True

    async def _probe(self) -> str:
        """Empty when the policies work, else what is wrong."""
        namespace = self._config.namespace
        policy, binding, *problems = await asyncio.gather(
            self._policy("policies"),
            self._policy("policybindings"),
            self._let_in(paths.sessions(namespace), _session(FALSE_NAME)),
            self._let_in(paths.engagements(namespace), _engagement(FALSE_NAME)),
        )
        for problem in problems:
            if problem:
                return problem
        changed = last_change([policy, binding])
        if self.watch.works_since is None or changed != self.watch.changed or not self.works.is_set():
            # An honest object, made after the refusals, says what time it is on the API server's clock.
            own = f"system:serviceaccount:{namespace}:{SERVICE}"
            honest = await self._api.create(paths.sessions(namespace), _session(own), dryRun="All")
            now = parse_time(honest["metadata"].get("creationTimestamp"))
            self.watch.refused(changed, now)
            if self.watch.trusts(now):
                self.works.set()
        return ""

    async def _let_in(self, path: str, body: Object) -> str:
        """Empty when our policy refuses it."""
        try:
            await self._api.create(path, body, dryRun="All")
        except ApiError as error:
            if error.forbidden and self._config.policy in error.message:
                return ""
            if error.retryable:
                raise
            return f"the false name was not refused by the policy {self._config.policy}, but: {error}"
        return f"the API server lets a false name into {path.rsplit('/', 1)[1]}; is the policy installed?"

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
