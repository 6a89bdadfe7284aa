"""The text form of each command's object. Pure: messages in, text out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunnel.proto import daemon_pb2 as pb


_SHOWN = 4
"""Of what was left alone, after connect."""


def pairs(entries: Iterable[tuple[str, str]], indent: int = 0) -> str:
    """Aligned `Key : value` lines; entries without a value are left out."""
    kept = [(key, value) for key, value in entries if value]
    width = max((len(key) for key, _ in kept), default=0)
    return "\n".join(f"{'':{indent}}{key:{width}} : {value}" for key, value in kept)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns, as kubectl prints them."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def connected(result: pb.ConnectResult) -> str:
    """After `connect`."""
    how = "Already connected" if result.existed else "Connected"
    head = f"{how} to context {result.context}, namespace {result.namespace} ({result.server})"
    more = len(result.left_alone) - _SHOWN
    lines = [head, *(f"  left alone: {text}" for text in result.left_alone[:_SHOWN])]
    return "\n".join([*lines, f"  and {more} more; see: tpctl status"] if more > 0 else lines)


def port(mapping: pb.PortMapping) -> str:
    """One mapping, from the container's port to the local one."""
    protocol = "/udp" if mapping.protocol.upper() == "UDP" else ""
    return f"{mapping.container}{protocol} -> {mapping.address or '127.0.0.1'}:{mapping.local}"


def ports(mappings: Iterable[pb.PortMapping]) -> str:
    """All mappings on one line."""
    return ", ".join(port(mapping) for mapping in mappings) or "none"


def engagement(one: pb.EngagementStatus, indent: int = 0) -> str:
    """One engaged container."""
    return pairs(
        (
            ("Workload", f"{one.workload} (namespace {one.namespace})"),
            ("Container", one.container),
            ("Mode", one.mode),
            ("State", one.phase.upper() + (f" ({one.reason})" if one.reason else "")),
            ("Ports", ports(one.ports)),
            ("Pods", ", ".join(one.pods)),
        ),
        indent,
    )


def status(result: pb.StatusResult) -> str:
    """Everything about the daemon and its connections."""
    parts = [pairs((("Daemon", f"running, version {result.version}, pid {result.pid}"),))]
    if not result.connections:
        parts.append("Not connected; run: tpctl connect")
    for one in result.connections:
        about = one.connection
        parts.append(
            f"Connection {about.name or '(unnamed)'}\n"
            + pairs(
                (
                    ("State", one.state + (f" ({one.reason})" if one.reason else "")),
                    ("Context", about.context),
                    ("Server", about.server),
                    ("Namespace", about.namespace),
                    ("User", about.user),
                    ("Manager", _manager(about)),
                    ("Device", about.device),
                    ("Subnets", ", ".join(about.subnets)),
                    ("Left alone", "; ".join(about.left_alone)),
                    ("DNS", about.dns_address + (f" through {one.resolver}" if one.resolver else "")),
                    ("Domains", _some(one.dns_domains)),
                    ("Flows", str(one.flows)),
                    ("Traffic", f"{size(one.bytes_sent)} sent, {size(one.bytes_received)} received"),
                    ("Worker", f"pid {one.worker_pid}" if one.worker_pid else ""),
                ),
                2,
            )
        )
        parts += [f"  Engagement {item.workload}\n" + engagement(item, 4) for item in one.engagements]
    return "\n".join(parts)


def _some(names: Sequence[str], most: int = 12) -> str:
    """The first ones; a cluster may have hundreds of namespaces."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def _manager(about: pb.ConnectResult) -> str:
    if not about.manager_namespace:
        return ""
    return f"namespace {about.manager_namespace}" + (
        f", version {about.manager_version}" if about.manager_version else ""
    )


def size(count: int) -> str:
    """Bytes for people."""
    value, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def workloads(result: pb.ListResult, namespace: str = "") -> str:
    """What can be engaged, in the namespace that was named, if one was."""
    if not result.workloads:
        return f"No workloads in namespace {namespace}" if namespace else "No workloads in the connected namespace"
    rows = [
        (f"{one.kind.lower()}/{one.name}", one.namespace, ",".join(one.containers), _state(one))
        for one in sorted(result.workloads, key=lambda one: (one.namespace, one.name, one.kind))
    ]
    return table(("WORKLOAD", "NAMESPACE", "CONTAINERS", "STATE"), rows)


def _state(one: pb.Workload) -> str:
    return one.state + (f": {one.reason}" if one.reason else "")


def replaced(result: pb.ReplaceResult) -> str:
    """After `replace`."""
    one = result.engagement
    head = f"Replaced container {one.container} of {one.workload} in namespace {one.namespace}"
    if not one.ports:
        return f"{head}; no ports are routed"
    return head + "\n" + "\n".join(f"  {port(mapping)}" for mapping in one.ports)


def left(result: pb.LeaveResult) -> str:
    """After `leave`."""
    return "\n".join(
        f"Left container {one.container} of {one.workload} in namespace {one.namespace};"
        f" {one.reason or 'the original is back'}"
        for one in result.left
    )


def quit_(result: pb.QuitResult, *, stopped: bool) -> str:
    """After `quit`."""
    lines = [f"Disconnected {name}" for name in result.connections] or ["Not connected"]
    lines += [f"  not released in the cluster, where its lease ends it: {text}" for text in result.not_released]
    return "\n".join([*lines, "Stopped tpd"] if stopped else lines)


def version(own: str, daemon: str, managers: dict[str, str]) -> str:
    """Every part's version."""
    entries = [("Client", own), ("Daemon", daemon or "not running")]
    entries += [(f"Manager ({name})", text or "unknown") for name, text in sorted(managers.items())]
    return pairs(entries)


def lost(status: pb.StatusResult, one: pb.EngagementStatus) -> str:
    """Why the engagement has ended, as a sentence; empty while it has not."""
    title = f"{one.workload}, container {one.container}"
    same = (one.workload, one.namespace, one.container)
    for connection in status.connections:
        for found in connection.engagements:
            if (found.workload, found.namespace, found.container) == same:
                return f"{title} is lost: {found.reason}" if found.phase in ("Gone", "Failed") else ""
    return f"{title} was given back by another command"
