"""Sockets that notice within about half a minute that the other end is out of reach."""

from __future__ import annotations

import socket
from typing import Any

_QUIET = 15
"""Seconds without a byte until the kernel asks whether the other end is there …"""
_BETWEEN = 5
"""… seconds between its questions …"""
_QUESTIONS = 3
"""… and how many without an answer end the connection."""
_UNACKNOWLEDGED = 30_000
"""Milliseconds that what was sent may wait for its acknowledgement; by default that is a quarter of an hour."""


def watchful_socket(info: tuple[Any, ...]) -> socket.socket:
    """For aiohttp's connector: a socket for this entry of getaddrinfo (tcp(7): TCP_KEEPIDLE, TCP_USER_TIMEOUT)."""
    family, kind, protocol = info[:3]
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _BETWEEN)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _QUESTIONS)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED)
    return made
