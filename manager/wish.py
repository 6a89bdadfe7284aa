"""What a pod becomes when it is engaged, as this manager's chart and root certificate say."""

from __future__ import annotations

from manager.config import AGENTS_PORT, SERVICE, Config
from manager.state.injection import Wish
from manager.state.model import Target
from tunnel.agentconfig import ManagerAddress, Workload


class WishMaker:
    """Makes wishes without containers and ports; the caller fills these in."""

    def __init__(self, config: Config, root_pem: bytes) -> None:
        self._config = config
        self._root_pem = root_pem.decode()

    def __call__(self, target: Target) -> Wish:
        """For pods of this workload."""
        config = self._config
        return Wish(
            image=config.agent.image,
            pull_policy=config.agent.pull_policy,
            root_pem=self._root_pem,
            manager=ManagerAddress(config.namespace, f"{SERVICE}.{config.namespace}.svc", AGENTS_PORT),
            workload=Workload(target.kind, target.name),
            containers=frozenset(),
            resources=config.agent.resources,
        )
