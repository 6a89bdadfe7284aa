"""The numbers of the stack, each with its reason. Built once by the owner and passed down."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on memory and on patience. Sizes in bytes, times in seconds."""

    mtu: int = 65535
    """Of the device: nothing larger leaves, except TCP super-segments, which the kernel takes at any MTU."""
    mss: int = 1460
    """What we advertise. TSO still brings 64 KiB at once, and it is far below the smallest window: with an MSS above
    the window the kernel sends only on its persist timer (measured: 0.34 MB/s)."""

    base_buffer: int = 64 * 1024
    """What every connection may hold in each direction, always."""
    max_buffer: int = 1024 * 1024
    """What one connection may grow to in each direction when its reader keeps up."""
    shared_buffer: int = 64 * 1024 * 1024
    """From which all growth comes."""

    max_connections: int = 16384
    half_open: int = 1024
    """Connections whose handshake is not complete (being dialled, or SYN-ACK unanswered); SYNs beyond are dropped, and
    the kernel repeats them after one second."""
    dial_timeout: float = 120.0
    """A dial that nobody decided is given up; the kernel itself gives up after about 130 s."""
    outcome_kept: float = 3.0
    """A refusal answers repeated SYNs of the same attempt (they come after 1 and 3 s)."""
    max_outcomes: int = 4096
    time_wait: float = 5.0
    """Enough for the last FIN to be repeated: there is no network between us and the peer, only a queue."""
    max_time_wait: int = 4096

    rto_initial: float = 1.0
    """RFC 6298, 2.1."""
    rto_min: float = 0.3
    """Below the RFC's 1 s, as everywhere; above the kernel's longest delayed ACK (0.2 s)."""
    rto_max: float = 10.0
    max_syn_acks: int = 5
    """Unanswered repetitions of a SYN-ACK after which the connection is reset and forgotten: 35 s after the first."""
    max_retransmits: int = 10
    """Unanswered repetitions (of data, of a probe) after which the peer is taken for dead."""
    keepalive_idle: float = 600.0
    """Silence on an open connection before it is probed."""
    keepalive_half_closed: float = 60.0
    """The same when one direction has ended: a peer that forgot the connection answers with a reset."""
    keepalive_interval: float = 5.0
    max_out_of_order: int = 64
    """Pieces kept behind a gap."""

    udp_idle: float = 120.0
    """Whoever carries the datagrams may end an association earlier."""
    max_associations: int = 8192

    fragment_bytes: int = 1024 * 1024
    """Held for all packets under reassembly; the oldest goes first."""
    fragment_pieces: int = 128
    """Of one packet: 64 KiB at an MTU of 576."""
    fragment_timeout: float = 5.0
    """RFC 791 suggests 15 s for a line; there is none here."""

    flush_bytes: int = 1024 * 1024
    """What one flush sends at most before others have their turn."""
    turn_bytes: int = 256 * 1024
    """What one connection sends before the next has its turn."""
