"""Who may do what, and what a worker gets of its user."""

from __future__ import annotations

import os
import socket

import pytest

from tpd.supervisor import users
from tpd.supervisor.users import User


def user(uid: int, *groups: int) -> User:
    return User(uid=uid, gid=uid, pid=1, groups=frozenset((uid, *groups)))


@pytest.mark.parametrize(
    ("caller", "group", "starter", "expected"),
    [
        (user(0), None, None, True),
        (user(1000), None, None, False),
        (user(1000), None, 1000, True),
        (user(1001), None, 1000, False),
        (user(1001, 27, 500), 500, None, True),
        (user(1001, 27), 500, 1000, False),
    ],
)
def test_allowed(caller: User, group: int | None, starter: int | None, expected: bool) -> None:
    assert users.allowed(caller, group=group, starter=starter) is expected


def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = users.peer(ours)
    assert (found.uid, found.gid, found.pid) == (os.getuid(), os.getgid(), os.getpid())
    assert set(os.getgroups()) <= found.groups


def test_starter() -> None:
    assert users.starter({"SUDO_UID": "1000"}) == 1000
    assert users.starter({"SUDO_UID": "-1"}) is None
    assert users.starter({}) is None


def test_the_environment_is_the_callers_with_what_a_login_sets() -> None:
    given = {"A": "b", "HOME": "/elsewhere", "BAD=NAME": "x", "NUL": "a\0b", "": "x"}
    made = users.environment(user(0), given)
    assert made["A"] == "b"
    assert made["HOME"] == "/elsewhere"
    assert made["USER"] == "root"
    assert not {"BAD=NAME", "NUL", ""} & set(made)


def test_log_folder() -> None:
    assert users.log_folder({"HOME": "/home/a"}) == "/home/a/.local/state/tpctl"
    assert users.log_folder({"HOME": "/home/a", "XDG_STATE_HOME": "/s"}) == "/s/tpctl"
    assert users.log_folder({"HOME": "relative"}) == ""
