"""Pure. `--port LOCAL[:CONTAINER][/udp]` and what a container declares, as a table of targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tpd.session.errors import SessionError


@dataclass(frozen=True, slots=True)
class PortMapping:
    """Calls to the container's port go to the local one. protocol: TCP or UDP."""

    local: int
    container: int
    protocol: str


def parse(text: str, declared: Sequence[tuple[str, int, str]]) -> PortMapping:
    """One `LOCAL[:CONTAINER][/udp]`; CONTAINER is a number or a declared port's name (then its protocol counts).

    declared: (name, number, protocol) of the container's ports. Raises `SessionError`.
    """
    body, _, suffix = text.partition("/")
    protocol = suffix.upper() or "TCP"
    if protocol not in ("TCP", "UDP"):
        raise SessionError(f"--port {text}: the protocol is tcp or udp, not {suffix!r}")
    local_text, _, container_text = body.partition(":")
    local = _number(local_text, text)
    if not container_text:
        return PortMapping(local, local, protocol)
    if container_text.isdigit():
        return PortMapping(local, _number(container_text, text), protocol)
    for name, number, kind in declared:
        if name == container_text:
            return PortMapping(local, number, kind)
    names = ", ".join(name for name, _, _ in declared if name) or "no named ports"
    raise SessionError(f"--port {text}: the container has no port named {container_text!r}; it has {names}")


def mappings(
    texts: Sequence[str], declared: Sequence[tuple[str, int, str]], *, none: bool = False
) -> list[PortMapping]:
    """The whole table: what was asked for, else every declared port to the same local port; `none`: no port."""
    if none:
        if texts:
            raise SessionError("--port and --no-ports exclude each other; give only one of them")
        return []
    found = [parse(text, declared) for text in texts] or [
        PortMapping(number, number, protocol) for _, number, protocol in declared
    ]
    _refuse_twice(found)
    return found


def declared_ports(container: dict[str, Any]) -> list[tuple[str, int, str]]:
    """(name, number, protocol) of a container's TCP and UDP ports (v1 Container)."""
    return [
        (str(port.get("name") or ""), int(port["containerPort"]), str(port.get("protocol") or "TCP"))
        for port in container.get("ports") or []
        if (port.get("protocol") or "TCP") in ("TCP", "UDP")
    ]


def _refuse_twice(found: Iterable[PortMapping]) -> None:
    seen: set[tuple[int, str]] = set()
    for mapping in found:
        key = (mapping.container, mapping.protocol)
        if key in seen:
            raise SessionError(
                f"container port {mapping.container}/{mapping.protocol.lower()} is mapped twice; give it once"
            )
        seen.add(key)


def _number(text: str, whole: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise SessionError(f"--port {whole}: {text or 'nothing'!r} is not a port; ports are 1 to 65535")
    return int(text)
