"""Connecting twice, quitting, and connecting again."""

from __future__ import annotations

import pytest

from integration.scenarios.conftest import UserFactory

pytestmark = pytest.mark.cluster


def test_quit_and_connect_again(people: UserFactory, demo: str) -> None:
    user = people()
    user.start_daemon()
    before = user.laptop.host_state()
    devices = []
    for _ in range(2):
        result = user.json("connect", "-n", demo)
        devices.append(result["device"])
        assert not result.get("existed")
        assert user.curl("http://echo/healthz") == "ok\n"
        user.tpctl("quit")
        assert user.json("status")["connections"] == []
        assert user.laptop.host_state() == before
    assert devices[0] == devices[1]


def test_the_same_connect_twice_changes_nothing(people: UserFactory, demo: str) -> None:
    user = people()
    user.connect(demo)
    status, host = user.json("status")["connections"][0], user.laptop.host_state()
    again = user.json("connect", "-n", demo)
    assert again["existed"] is True
    assert again["device"] == status["connection"]["device"]
    after = user.json("status")["connections"]
    assert [each["worker_pid"] for each in after] == [status["worker_pid"]]
    assert user.laptop.host_state() == host
    assert len(user.laptop.processes()) == 2  # tpd and one worker
    assert user.curl("http://echo/healthz") == "ok\n"
