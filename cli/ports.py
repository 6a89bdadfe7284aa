"""Port mappings as people write them: LOCAL[:CONTAINER][/udp]. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.errors import CommandError


@dataclass(frozen=True)
class PortMapping:
    """Calls of a container port go to a local port."""

    local: int
    container: int
    protocol: str = "TCP"

    def text(self) -> str:
        """The complete form, as the worker reads it."""
        return f"{self.local}:{self.container}" + ("/udp" if self.protocol == "UDP" else "")


def parse(text: str) -> PortMapping:
    """One mapping. Raises CommandError."""
    ports, slash, protocol = text.strip().partition("/")
    if slash and protocol.lower() not in ("tcp", "udp"):
        raise CommandError(f"--port {text}: the protocol is tcp or udp")
    local, colon, container = ports.partition(":")
    return PortMapping(
        _number(local, text), _number(container, text) if colon else _number(local, text), (protocol or "tcp").upper()
    )


def _number(word: str, text: str) -> int:
    if not (word.isascii() and word.isdigit()):
        raise CommandError(f"--port {text}: write LOCAL:CONTAINER, for example 8080:80 or 5300:53/udp")
    number = int(word)
    if not 1 <= number <= 65535:
        raise CommandError(f"--port {text}: a port is a number from 1 to 65535")
    return number


def parse_all(texts: Sequence[str]) -> list[PortMapping]:
    """All mappings of one command. Raises CommandError, also when a container port is mapped twice."""
    found: dict[tuple[int, str], PortMapping] = {}
    for text in texts:
        mapping = parse(text)
        key = (mapping.container, mapping.protocol)
        if key in found:
            raise CommandError(f"--port {text}: container port {mapping.container} is mapped twice; give it once")
        found[key] = mapping
    return list(found.values())
