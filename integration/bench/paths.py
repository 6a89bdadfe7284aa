"""The four paths, one after the other, at each round-trip time."""

from __future__ import annotations

import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from integration.bench.developer import CommandFailed, Developer, many_connections
from integration.bench.measure import Measuring, Path, Plan
from integration.bench.model import INBOUND, KUBECTL, NODE, OUTBOUND, Cell, Run
from integration.bench.workload import NAMESPACE, PORT, STAYS, Workload
from integration.cluster.addresses import CLUSTER_DNS, CLUSTER_DOMAIN
from integration.cluster.cluster import Cluster
from integration.cluster.errors import ClusterError
from integration.cluster.places import REPOSITORY

DNS_NAME = f"{STAYS}.{NAMESPACE}.svc.{CLUSTER_DOMAIN}"
COMMAND_TIMES = 3
"""How often connect is measured; the median counts."""


@dataclass(frozen=True)
class Bench:
    """What all paths need."""

    cluster: Cluster
    workload: Workload
    run: Run
    plan: Plan
    say: Callable[[str], None]

    def node(self) -> None:
        """No tunnel at all, from the node."""
        many_connections(self.cluster.node)
        target = (self.workload.address, PORT)
        path = Path(
            NODE, *target, self._on_node, dict, CLUSTER_DNS, DNS_NAME, frozenset({"idle", "memory", "sustained"})
        )
        self._measure(path, self._cell(NODE, 0))

    def kubectl(self, developer: Developer, rtt_ms: int) -> None:
        """`kubectl port-forward`."""
        cell = self._cell(KUBECTL, rtt_ms)
        try:
            with developer.port_forward() as port:
                target = ("127.0.0.1", port)
                # nothing is compared with kubectl's memory and idle time
                leave_out = frozenset({"idle", "memory", "dns", "sustained"})
                path = Path(KUBECTL, *target, developer.spawn, developer.kubectl_carriers, leave_out=leave_out)
                self._measure(path, cell)
        except CommandFailed as failed:
            cell.problems.append(str(failed))

    def outbound(self, developer: Developer, rtt_ms: int) -> None:
        """Through the tunnel to a service; leaves the laptop connected."""
        cell = self._cell(OUTBOUND, rtt_ms)
        try:
            times = []
            for last in [False] * (COMMAND_TIMES - 1) + [True]:
                times.append(developer.connect())
                if not last:
                    developer.tpctl("quit")
            cell.values["connect_s"] = round(statistics.median(times), 2)
        except CommandFailed as failed:
            cell.problems.append(str(failed))
            return
        target = (self.workload.address, PORT)
        self._measure(Path(OUTBOUND, *target, developer.spawn, developer.carriers, None, DNS_NAME), cell)

    def inbound(self, developer: Developer, rtt_ms: int) -> None:
        """From the node to a service whose container is replaced by the laptop's workload."""
        cell = self._cell(INBOUND, rtt_ms)
        try:
            developer.start_workload()
            own = self.workload.pod_replacement()
            replace = developer.replace()
        except (CommandFailed, ClusterError, TimeoutError) as failed:
            cell.problems.append(str(failed))
            return
        cell.values["pod_replacement_s"] = round(own, 2)
        cell.values["replace_s"] = round(replace, 2)
        cell.values["replace_extra_s"] = round(replace - own, 2)
        target = (self.workload.replaced_address, PORT)
        self._measure(
            Path(INBOUND, *target, self._on_node, developer.carriers, leave_out=frozenset({"dns", "sustained"})), cell
        )
        try:
            cell.values["leave_s"] = round(developer.leave(), 2)
            self.workload.wait_original()
        except (CommandFailed, TimeoutError) as failed:
            cell.problems.append(str(failed) or "the original pod did not come back")

    def _cell(self, path: str, rtt_ms: int) -> Cell:
        cell = Cell(path, rtt_ms)
        self.run.cells.append(cell)
        return cell

    def _measure(self, path: Path, cell: Cell) -> None:
        Measuring(path, cell, self.plan, self.say).run()

    def _on_node(self, command: Sequence[str]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        argv = self.cluster.node.argv(command, namespaces=("--net",))
        return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, text=True, cwd=REPOSITORY)
