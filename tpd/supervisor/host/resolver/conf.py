"""Reading and editing the text of resolv.conf (resolv.conf(5)). Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass

from tpd.supervisor.host.types import Address

MARK = "# tpd answers names here while tpctl is connected; the original comes back with: tpctl quit"


@dataclass(frozen=True)
class ResolvConf:
    """What matters of a resolv.conf."""

    nameservers: tuple[Address, ...]
    search: tuple[str, ...]


def parse(text: str) -> ResolvConf:
    """Nameservers in order, and the last search (or domain) line, as the C library reads them."""
    nameservers: list[Address] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        words = _words(line)
        if words[:1] == ["nameserver"] and len(words) > 1:
            try:
                nameservers.append(ipaddress.ip_address(words[1]))
            except ValueError:
                continue
        elif words and words[0] in ("search", "domain"):
            search = tuple(word.lower().rstrip(".") for word in words[1:] if word.rstrip("."))
    return ResolvConf(tuple(nameservers), search)


def edit(text: str, nameserver: Address, search: Iterable[str]) -> str:
    """The text with this nameserver alone, and these search domains in front of its own. Comments and options stay."""
    own = parse(text).search
    names = list(dict.fromkeys((*search, *own)))
    lines = [MARK, f"nameserver {nameserver}"]
    if names:
        lines.append("search " + " ".join(names))
    lines += [line for line in text.splitlines() if _words(line)[:1] not in (["nameserver"], ["search"], ["domain"])]
    return "\n".join(lines) + "\n"


def undo(current: str, ours: str, original: str, nameserver: str) -> str | None:
    """What the file must hold to be rid of our edit, or None when it must not be touched.

    `current` is what it holds now. When it is what we wrote, or the torn beginning of that, the original comes back.
    When somebody else wrote it since, theirs stays, without a line that still names our resolver.
    """
    if current == original:
        return None
    if ours.startswith(current):
        return original
    lines = current.splitlines(keepends=True)
    kept = [line for line in lines if _words(line)[:2] != ["nameserver", nameserver] and line.strip() != MARK]
    return "".join(kept) if len(kept) < len(lines) else None


def _words(line: str) -> list[str]:
    stripped = line.strip()
    if stripped[:1] in ("#", ";"):
        return []
    for mark in ("#", ";"):
        stripped = stripped.split(mark, 1)[0]
    return stripped.split()
