"""Who is at the other end of the socket, and what they may do."""

from __future__ import annotations

import grp
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass

GROUP = "tpd"
_SO_PEERGROUPS = 59  # linux/asm-generic/socket.h; Python's socket module has no name for it
_CREDENTIALS = struct.Struct("iII")


@dataclass(frozen=True)
class User:
    """The caller, as the kernel says (SO_PEERCRED, SO_PEERGROUPS: unix(7))."""

    uid: int
    gid: int
    pid: int
    groups: frozenset[int]


def peer(sock: socket.socket) -> User:
    """The user at the other end of a connected Unix socket. Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, 1024)  # the most that getsockopt takes
        groups = frozenset(struct.unpack(f"{len(raw) // 4}I", raw))
    except OSError:
        groups = frozenset(_account_groups(uid, gid))  # before Linux 4.13, or with more groups than fit
    return User(uid=uid, gid=gid, pid=pid, groups=groups | {gid})


def group_id() -> int | None:
    """Of the group whose members may use tpd, when there is one."""
    try:
        return grp.getgrnam(GROUP).gr_gid
    except KeyError:
        return None


def allowed(user: User, *, group: int | None, starter: int | None) -> bool:
    """Root, members of the group, and whoever started tpd through sudo."""
    return user.uid == 0 or user.uid == starter or (group is not None and group in user.groups)


def starter(environment: Mapping[str, str]) -> int | None:
    """The user who started this process through sudo."""
    text = environment.get("SUDO_UID", "")
    return int(text) if text.isdigit() else None


def name(uid: int) -> str:
    """For messages."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def supplementary_groups(user: User) -> list[int]:
    """What initgroups(3) would set; without an account, the groups that the caller has now."""
    return _account_groups(user.uid, user.gid) or sorted(user.groups)


def _account_groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return []


def environment(user: User, given: Mapping[str, str]) -> dict[str, str]:
    """The worker's environment: the caller's own, with what a login would have set.

    Entries that no process can have are left out. Safe for root: only the worker sees it, which runs as the user.
    """
    result = {key: value for key, value in given.items() if key and "=" not in key and "\0" not in key + value}
    try:
        account = pwd.getpwuid(user.uid)
    except KeyError:
        return result
    for key, value in (("HOME", account.pw_dir), ("USER", account.pw_name), ("LOGNAME", account.pw_name)):
        result.setdefault(key, value)
    return result


def log_folder(environment: Mapping[str, str]) -> str:
    """Where the user's programs keep their logs (XDG Base Directory Specification)."""
    state = environment.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):
        home = environment.get("HOME", "")
        if not home.startswith("/"):
            return ""
        state = f"{home}/.local/state"
    return f"{state}/tpctl"
