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


def rebase(current: str, ours: str, original: str, nameserver: str) -> str:
    """What the file would say without our edit.

    `current` is what it says now, `ours` what we made of `original`. The torn beginning of what we wrote is the
    original. Text that somebody else edited in place still carries our nameserver line, which stands for the
    original's: those take its place, and our mark and search domains go. Anything else is theirs, as it is.
    """
    if ours.startswith(current):
        return original
    lines = current.splitlines(keepends=True)
    at = [number for number, line in enumerate(lines) if _words(line)[:2] == ["nameserver", nameserver]]
    if not at:
        return current
    present = [_words(line)[:2] for line in lines]
    hidden = [line + "\n" for line in original.splitlines() if _words(line)[:1] == ["nameserver"]]
    added = set(parse(ours).search) - set(parse(original).search)
    kept: list[str] = []
    for number, line in enumerate(lines):
        words = _words(line)
        if number == at[0]:
            kept += [own for own in hidden if _words(own)[:2] not in present]
        elif number in at or line.strip() == MARK:
            continue
        elif words[:1] == ["search"] and not added.isdisjoint(words):
            names = [word for word in words if word not in added]
            if len(names) > 1:
                kept.append(" ".join(names) + "\n")
        else:
            kept.append(line)
    return "".join(kept)


def _words(line: str) -> list[str]:
    stripped = line.strip()
    if stripped[:1] in ("#", ";"):
        return []
    for mark in ("#", ";"):
        stripped = stripped.split(mark, 1)[0]
    return stripped.split()
