"""Keeps the Sessions' statuses: signs keys, refuses, lets leases end."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Callable, Mapping
from typing import Any

from manager import pki
from manager.config import Config
from manager.kube import paths
from manager.kube.fresh import Fresh
from manager.kube.probe import PolicyProbe
from manager.registry import LiveSessions, Wakeup
from manager.state import sessions as state
from manager.state.model import Session, SessionPhase, format_time, session_of
from manager.state.sessions import Decision, Leases, Step
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError, KubeError
from tunnel.kube.informer import Informer

log = logging.getLogger(__name__)

_LOOK_AGAIN = 5.0
"""Seconds between looks at the leases and at the API server's health when nothing else happens."""


class SessionController:
    """One task; wakes on every change of a Session."""

    def __init__(
        self,
        api: Api,
        config: Config,
        authority: pki.Authority,
        probe: PolicyProbe,
        live: LiveSessions,
        on_change: Callable[[], None],
    ) -> None:
        self._api = api
        self._config = config
        self._authority = authority
        self._probe = probe
        self._live = live
        self._on_change = on_change
        self.wakeup = Wakeup()
        self.informer = Informer(api, paths.sessions(config.namespace), self.wakeup.set)
        self._fresh = Fresh(self.informer)
        self._leases = Leases(config.lease_seconds)
        self.published = asyncio.Event()
        """Set once the live sessions are known."""

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        await self.informer.synced.wait()
        while True:
            if not self.informer.healthy:
                self._leases.forgive(loop.time())
            sessions = [session_of(item) for item in self._fresh.items()]
            self._leases.observe(sessions, loop.time())
            self._publish(sessions)
            again = False
            if any(session.phase is SessionPhase.PENDING for session in sessions):
                await self._probe.confirm()
            for session in sessions:
                decision = self._decide(session)
                if decision.step is not Step.NOTHING:
                    again = not await self._perform(session, decision) or again
                    # Now, not after the others' turn: its laptop has the certificate already and is about to call.
                    self._publish([session_of(item) for item in self._fresh.items()])
            end = self._leases.next_end(loop.time())
            pause = 0.5 if again else min(_LOOK_AGAIN, _LOOK_AGAIN if end is None else end + 0.01)
            await self.wakeup.wait(pause)

    def _decide(self, session: Session) -> Decision:
        return state.decide(
            session,
            silence=self._leases.silence(session.uid, asyncio.get_running_loop().time()),
            lease=self._config.lease_seconds,
            policy=self._probe.watch,
            pod_uid=self._config.pod_uid,
            root_pem=self._authority.root_pem.decode(),
            certificate_life=pki.SESSION_LIFE.total_seconds(),
            wall=dt.datetime.now(dt.UTC).timestamp(),
        )

    def _publish(self, sessions: list[Session]) -> None:
        live = {session.uid: session for session in sessions if session.phase is SessionPhase.ACTIVE}
        if live != self._live.all():
            self._live.update(live)
            self._on_change()
        self.published.set()

    async def _perform(self, session: Session, decision: Decision) -> bool:
        """Write what was decided; False when it has to be decided again soon."""
        try:
            if decision.step is Step.DELETE:
                await self._api.delete(
                    paths.sessions(session.namespace, session.name),
                    body={"preconditions": {"uid": session.uid}},
                )
                return True
            item = await self._api.patch(
                paths.sessions(session.namespace, session.name, "status"),
                {
                    "metadata": {"resourceVersion": session.version, "uid": session.uid},
                    "status": self._status(session, decision),
                },
            )
        except ApiError as error:
            if error.not_found or error.conflict:
                await self._look(session)
                return False
            log.warning("cannot write the status of session %s: %s", session.name, error)
            return False
        except KubeError as error:
            log.warning("cannot write the status of session %s: %s", session.name, error)
            return False
        log.info("session %s of %s (%s): %s", session.name, session.user, session.host, decision.step.name.lower())
        self._fresh.put(item)
        return True

    async def _look(self, session: Session) -> None:
        """Learn what became of a session that is not as we know it: the watch may tell late, or not at all."""
        key = (session.namespace, session.name)
        try:
            item = await self._api.get(paths.sessions(*key))
        except KubeError as error:
            if not (isinstance(error, ApiError) and error.not_found):
                log.warning("cannot read session %s: %s", session.name, error)
                return
            item = {}
        known = self.informer.items.get(key)
        if (item.get("metadata") or {}).get("uid") == session.uid:
            self._fresh.put(item)
        elif known is not None and session_of(known).uid == session.uid:
            del self.informer.items[key]

    def _status(self, session: Session, decision: Decision) -> Mapping[str, Any]:
        status: dict[str, Any] = {"reason": decision.reason, "message": decision.message}
        if decision.step is Step.REFUSE:
            return status | {"phase": SessionPhase.REFUSED.value}
        if decision.step is Step.EXPIRE:
            return status | {"phase": SessionPhase.EXPIRED.value}
        status |= {
            "phase": SessionPhase.ACTIVE.value,
            "leaseSeconds": int(self._config.lease_seconds),
            "managerPod": self._config.pod_name,
            "managerPodUid": self._config.pod_uid,
        }
        if decision.step is Step.ADOPT:
            return status
        try:
            leaf = self._authority.sign(
                Identity(Kind.SESSION, session.uid),
                session.public_key.encode(),
                pki.SESSION_LIFE,
                dt.datetime.now(dt.UTC),
            )
        except pki.BadKey as error:
            return {"phase": SessionPhase.REFUSED.value, "reason": "BadKey", "message": f"{error}."}
        return status | {
            "certificate": leaf.chain_pem.decode(),
            "root": self._authority.root_pem.decode(),
            "expiresAt": format_time(leaf.expires_at.timestamp()),
        }
