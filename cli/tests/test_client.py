"""What tpd says is what the user reads, however early it hangs up."""

from __future__ import annotations

import socket

import pytest

from cli import client, daemon
from cli.errors import CommandError
from cli.progress import Progress
from tunnel import control
from tunnel.proto import daemon_pb2 as pb


@pytest.mark.parametrize("unread", [b"", b"some of the request"], ids=["before the request", "in its middle"])
def test_a_refusal_is_read_though_tpd_hung_up(monkeypatch: pytest.MonkeyPatch, unread: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.sendall(unread)
        control.send(theirs, pb.Event(error=pb.Error(text="tpd is of another version; run: tpctl quit -s")))
    monkeypatch.setattr(daemon, "dial", lambda where: ours)
    with pytest.raises(CommandError, match="another version"):
        client.call(pb.Request(status=pb.Status()), Progress(quiet=True))
