"""The traffic-agent's process: reads what the webhook put into the pod, and joins the parts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import uvloop

from agent.decide import Held
from agent.listeners import Listeners
from agent.registry import Credentials, ManagerUnavailable, Registry
from agent.server import AgentServer
from tunnel import agentconfig, logs
from tunnel.agentconfig import AgentConfig, BadAgentConfig
from tunnel.aio.backoff import Backoff
from tunnel.aio.signals import finish, stop_on_signals
from tunnel.proto.manager_pb2 import AgentGrants, AgentReport
from tunnel.version import VERSION

RENEW_AT = 2 / 3
"""Part of a certificate's life after which the next is asked for."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
SOON_PAUSE = 0.5
SOON_SECONDS = 20.0
"""The longest pause while the manager is away no longer than its own restart takes."""
STOP_GRACE = 0.2
"""Seconds for calls under way when the pod ends; laptops come again to the pod that follows."""

log = logging.getLogger("agent")


class Agent:
    """One agent, made from its environment, inside the loop that runs it.

    Raises BadAgentConfig when the environment is not what the webhook makes.
    """

    def __init__(self, environ: Mapping[str, str], token_file: Path = Path(agentconfig.TOKEN_FILE)) -> None:
        config = agentconfig.parse(environ.get(agentconfig.ENV_CONFIG, ""))
        root = environ.get(agentconfig.ENV_ROOT, "")
        if not root:
            raise BadAgentConfig(f"The environment variable {agentconfig.ENV_ROOT} is not set.")
        self._config: AgentConfig = config
        manager = config.manager
        self._registry = Registry(f"{manager.address}:{manager.port}", manager.namespace, root.encode(), token_file)
        self._report = AgentReport(
            version=VERSION,
            pod_name=environ.get(agentconfig.ENV_POD_NAME, ""),
            namespace=environ.get(agentconfig.ENV_POD_NAMESPACE, ""),
            pod_uid=environ.get(agentconfig.ENV_POD_UID, ""),
            pod_address=environ.get(agentconfig.ENV_POD_ADDRESS, ""),
            port=config.agent_port,
            containers=[container.name for container in config.replaced],
        )
        self._held = Held(config)
        self._server = AgentServer(config, environ)
        self._listeners = Listeners(self._server.links, self._server.links.server.budget, config.ready_port)
        self._lease_timer: asyncio.TimerHandle | None = None

    def attached(self, session: str) -> bool:
        """Whether this session's laptop is here now."""
        return self._server.links.attached(session)

    async def run(self) -> None:
        """Serve until cancelled."""
        credentials = await self._certified(Backoff(FIRST_PAUSE, LONGEST_PAUSE, random.random))
        self._server.use(credentials)
        await self._server.start(self._config.agent_port)
        log.info("serving on port %d in place of %s", self._config.agent_port, ", ".join(self._report.containers))
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listeners.run(), name="agent.listeners")
                tasks.create_task(self._renew(credentials), name="agent.renew")
                tasks.create_task(self._attend(), name="agent.attend")
        finally:
            if self._lease_timer is not None:
                self._lease_timer.cancel()
            await self._server.stop(STOP_GRACE)

    async def _certified(self, backoff: Backoff) -> Credentials:
        while True:
            try:
                return await self._registry.certify()
            except ManagerUnavailable as error:
                pause = backoff.next()
                log.warning("no certificate yet: %s; trying again in %.1f s", error, pause)
                await asyncio.sleep(pause)

    async def _renew(self, credentials: Credentials) -> None:
        while True:
            await asyncio.sleep(max((credentials.expires_at - time.time()) * RENEW_AT, 1.0))
            credentials = await self._certified(Backoff(1.0, 60.0, random.random))
            self._server.use(credentials)
            log.info("has a new certificate")

    async def _attend(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE, random.random)

        away: float | None = None

        def granted(grants: AgentGrants) -> None:
            nonlocal away
            if away is not None:
                log.info("the manager is back")
                away = None
            backoff.reset()
            self._held.granted(grants)
            self._apply()

        while True:
            try:
                await self._registry.attend(self._report, granted)
            except ManagerUnavailable as error:
                away = loop.time() if away is None else away
                self._held.manager_lost(loop.time())
                self._apply()
                pause = backoff.next()
                if loop.time() - away < SOON_SECONDS:
                    pause = min(pause, SOON_PAUSE)
                log.warning("the manager is away: %s; trying again in %.1f s", error, pause)
                await asyncio.sleep(pause)

    def _apply(self) -> None:
        """Do what the grants say now, and come again when they say something else by themselves."""
        loop = asyncio.get_running_loop()
        if self._lease_timer is not None:
            self._lease_timer.cancel()
            self._lease_timer = None
        decision = self._held.current(loop.time())
        change = self._held.next_change()
        if change is not None and change > loop.time():
            self._lease_timer = loop.call_at(change, self._apply)
        self._server.allow(decision)
        self._listeners.want(decision)


async def _serve(environ: Mapping[str, str]) -> None:
    agent = Agent(environ)
    with stop_on_signals() as stop:
        running = asyncio.create_task(agent.run(), name="agent")
        asked = asyncio.create_task(stop.wait(), name="agent.stop")
        await asyncio.wait((running, asked), return_when=asyncio.FIRST_COMPLETED)
        asked.cancel()
        if stop.is_set():
            log.info("stopping")
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finish(stop)


def main() -> None:
    """Entry point `tp-agent`."""
    logs.begin("info")
    try:
        uvloop.run(_serve(os.environ))
    except BadAgentConfig as error:
        log.error("%s", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
