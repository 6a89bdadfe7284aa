"""The stack against a strict model, on virtual time, over a network that loses, repeats and reorders."""

from __future__ import annotations

import random

import pytest

from tunnel.endpoint import Broken
from tunnel.stack import Limits
from tunnel.stack.tests.network import Faults, Network
from tunnel.stack.tests.peer import Peer

QUIET = Faults()
LOSSY = Faults(loss=0.05)
WILD = Faults(loss=0.1, duplicate=0.1, jitter=0.02)


@pytest.mark.parametrize("faults", [QUIET, LOSSY, WILD], ids=["quiet", "lossy", "wild"])
@pytest.mark.parametrize("seed", range(6))
def test_everything_arrives_and_everything_ends(seed: int, faults: Faults) -> None:
    source = random.Random(seed)
    network = Network(seed, faults)
    network.answer = source.randbytes(source.choice([0, 1, 5000, 300_000]))
    network.dial_delay = source.choice([0.0, 0.05, 3.0])
    question = source.randbytes(source.choice([0, 1, 5000, 300_000]))
    initial = source.choice([0, 0xFFFFFFF0, 0x7FFFFFF0])
    peer = Peer(seed, question, buffer=source.choice([1000, 30000, 200_000]), initial=initial)
    network.add(40000, peer)
    assert network.run(lambda: peer.finished and bool(network.programs) and bool(network.programs[-1].closed))
    program = network.programs[-1]
    assert program.closed == [None]
    assert bytes(program.got) == question
    assert bytes(peer.got) == network.answer
    assert not peer.reset
    assert network.stack.tcp_connections == 0
    assert network.stack.half_open == 0


def test_many_flows_share_what_there_is_and_give_it_back() -> None:
    limits = Limits(shared_buffer=256 * 1024)
    network = Network(7, LOSSY, limits)
    network.answer = bytes(200_000)
    peers = [Peer(n, bytes(150_000), port=41000 + n, buffer=100_000) for n in range(10)]
    for n, peer in enumerate(peers):
        network.add(41000 + n, peer)
    assert network.run(lambda: all(peer.finished for peer in peers) and network.stack.tcp_connections == 0)
    for peer, program in zip(peers, network.programs, strict=True):
        assert len(peer.got) == 200_000
        assert len(program.got) == 150_000
        assert program.most_unconsumed <= limits.max_buffer
    assert network.stack.buffers_free == limits.shared_buffer


def test_a_closed_window_is_probed_and_opens() -> None:
    network = Network(3, Faults(loss=0.3))
    network.answer = bytes(50_000)
    peer = Peer(3, b"", buffer=8000)
    peer.held = True
    network.add(40000, peer)
    network.run(lambda: False, seconds=30)
    assert len(peer.got) <= 8000
    peer.held = False
    assert network.run(lambda: peer.finished)
    assert len(peer.got) == 50_000


def test_a_peer_that_vanished_is_noticed() -> None:
    network = Network(4, QUIET)
    network.answer = bytes(100_000)
    peer = Peer(4, b"")
    network.add(40000, peer)
    assert network.run(lambda: len(peer.got) > 0)
    network.vanish()
    assert network.run(lambda: bool(network.programs[0].closed), seconds=300)
    assert network.programs[0].closed == [Broken.TIMED_OUT]
    assert network.stack.tcp_connections == 0


def test_an_idle_half_closed_connection_is_probed() -> None:
    limits = Limits()
    network = Network(5, QUIET, limits)
    network.answer = b"x"
    peer = Peer(5, b"never ends" * 10_000, buffer=8000)
    network.add(40000, peer)
    assert network.run(lambda: peer.eof)
    network.vanish()
    assert network.run(lambda: bool(network.programs[0].closed), seconds=300)
    assert network.programs[0].closed == [Broken.TIMED_OUT]


def test_an_undecided_dial_is_given_up() -> None:
    network = Network(6, QUIET)
    network.dial_delay = 1e6
    network.add(40000, Peer(6, b""))
    assert network.run(lambda: bool(network.programs) and bool(network.programs[0].closed), seconds=200)
    assert network.programs[0].closed == [Broken.TIMED_OUT]
    assert network.stack.half_open == 0
