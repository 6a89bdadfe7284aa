"""TCP by example: one table or conversation per rule."""

from __future__ import annotations

from itertools import pairwise
from typing import NoReturn

import pytest

from tunnel.endpoint import Broken, Refusal
from tunnel.stack import Limits, TcpConnection
from tunnel.stack.state import State
from tunnel.stack.tests.conversation import IRS, Conversation


def talk() -> Conversation:
    return Conversation().established()


# The handshake.


def test_the_syn_is_answered_only_after_accept() -> None:
    c = Conversation()
    c.syn()
    assert c.passes(5) == []
    c.syn()
    assert c.passes(5) == []
    assert len(c.listeners) == 1
    assert c.stack.half_open == 1
    c.connection.accept()
    assert c.hears() == ["SA -1 0"]
    c.says("A")
    assert c.connection.state is State.ESTABLISHED
    assert c.stack.half_open == 0
    assert (c.connection.local, c.connection.remote) == (("10.99.1.1", 80), ("10.99.0.1", 40000))


def test_an_unanswered_syn_ack_is_repeated_and_then_given_up() -> None:
    c = Conversation()
    c.syn()
    c.connection.accept()
    said = c.passes(60)
    assert said == ["SA -1 0"] * 6 + ["RA 0 0"]
    assert c.listener.closed == [Broken.TIMED_OUT]
    assert (c.stack.tcp_connections, c.stack.half_open) == (0, 0)


def test_a_repeated_syn_gets_its_syn_ack_again() -> None:
    c = Conversation()
    c.syn()
    c.connection.accept()
    c.hears()
    c.syn()
    assert c.hears() == ["SA -1 0"]


def test_a_wrong_acknowledgement_in_the_handshake_is_reset() -> None:
    c = Conversation()
    c.syn()
    c.connection.accept()
    c.hears()
    c.says("A", ack=5)
    assert c.hears() == ["R 5"]
    assert c.connection.state is State.SYN_RECEIVED


@pytest.mark.parametrize(
    ("refusal", "answer"),
    [
        (Refusal.REFUSED, "RA -5001 0"),
        (Refusal.UNREACHABLE, "icmp 3 1"),
        (Refusal.TIMEOUT, "icmp 3 1"),
        (Refusal.PROHIBITED, "icmp 3 13"),
        (Refusal.BUSY, "icmp 3 1"),
        (Refusal.GONE, "icmp 3 1"),
    ],
)
def test_a_refusal_answers_repetitions_for_three_seconds(refusal: Refusal, answer: str) -> None:
    c = Conversation()
    c.syn()
    c.passes(20)
    c.connection.refuse(refusal)
    assert c.wakes, "nobody else would flush it"
    assert c.hears() == [answer]
    c.passes(2.9)
    c.syn()
    assert c.hears() == [answer]
    assert len(c.listeners) == 1
    c.passes(0.2)
    c.syn()
    assert c.hears() == []
    assert len(c.listeners) == 2
    assert c.listeners[0].calls == []


def test_a_refusal_is_no_answer_to_a_new_attempt() -> None:
    c = Conversation()
    c.syn()
    c.connection.refuse(Refusal.REFUSED)
    c.syn(irs=IRS + 77777)
    assert len(c.listeners) == 2


def test_a_new_attempt_from_the_same_port_supersedes_a_pending_one() -> None:
    c = Conversation()
    c.syn(irs=77)
    c.syn()
    assert [listener.closed for listener in c.listeners] == [[Broken.RESET], []]
    c.listeners[0].connection.accept()
    assert c.hears() == []
    c.connection.accept()
    assert c.hears() == ["SA -1 0"]
    assert c.stack.half_open == 1


def test_a_new_attempt_supersedes_one_that_was_answered() -> None:
    c = Conversation()
    c.syn(irs=77)
    c.connection.accept()
    c.hears()
    c.syn()
    assert [listener.closed for listener in c.listeners] == [[Broken.RESET], []]
    c.connection.accept()
    assert c.hears() == ["SA -1 0"]
    c.says("A")
    assert c.connection.state is State.ESTABLISHED
    assert (c.stack.tcp_connections, c.stack.half_open) == (1, 0)


def test_bytes_given_before_accept_leave_after_the_handshake() -> None:
    c = Conversation()
    c.syn()
    assert c.connection.send(memoryview(b"hello")) == 5
    c.connection.send_eof()
    assert c.hears() == []
    c.connection.accept()
    assert c.hears() == ["SA -1 0"]
    c.says("A")
    assert c.hears() == ["AF 0 0 5"]


def test_reset_before_accept_is_a_refusal() -> None:
    c = Conversation()
    c.syn()
    c.connection.reset()
    assert c.hears() == ["RA -5001 0"]
    assert c.stack.tcp_connections == 0


def test_syns_beyond_the_limit_are_dropped() -> None:
    c = Conversation(Limits(half_open=3))
    for port in range(10):
        c.syn(port=1000 + port)
    assert (len(c.listeners), c.stack.dropped_syns, c.stack.half_open) == (3, 7, 3)
    c.listeners[0].connection.refuse(Refusal.REFUSED)
    c.syn(port=2000)
    assert len(c.listeners) == 4


# Segments of no connection.


def test_strangers_are_reset_but_resets_are_not_answered() -> None:
    c = Conversation()
    c.says("A", 10, 20)
    c.says("F", 10, 0, b"abc")
    c.says("R", 10)
    c.says("RA", 10)
    assert c.hears() == ["R 20", "RA -5001 14"]


# Data in.


def test_data_is_delivered_and_acknowledged_at_once() -> None:
    c = talk()
    c.says("A", 0, 0, b"abc")
    c.says("A", 3, 0, b"def")
    assert c.listener.got == b"abcdef"
    assert c.hears() == ["A 0 6"], "one acknowledgement for all that came together"


def test_out_of_order_data_waits_and_each_piece_is_answered() -> None:
    c = talk()
    c.says("A", 3, 0, b"def")
    c.says("A", 9, 0, b"jkl")
    c.says("A", 6, 0, b"ghi")
    assert c.hears() == ["A 0 0"] * 3, "three duplicates make the peer repeat"
    assert c.listener.got == b""
    c.says("A", 0, 0, b"abc")
    assert c.listener.got == b"abcdefghijkl"
    assert c.hears() == ["A 0 12"]


@pytest.mark.parametrize(
    ("first", "second"), [((0, b"abcd"), (2, b"cdef")), ((0, b"abcd"), (0, b"abcdef")), ((2, b"cdef"), (0, b"abcd"))]
)
def test_overlaps_are_delivered_once(first: tuple[int, bytes], second: tuple[int, bytes]) -> None:
    c = talk()
    for seq, data in (first, second):
        c.says("A", seq, 0, data)
    assert c.listener.got == b"abcdef"


def test_repetitions_and_probes_are_answered() -> None:
    c = talk()
    c.says("A", 0, 0, b"abc")
    c.hears()
    c.says("A", 0, 0, b"abc")
    c.says("A", 2, 0)
    assert c.hears() == ["A 0 3", "A 0 3"]
    assert c.listener.got == b"abc"


def test_the_window_closes_on_a_stalled_owner_and_opens_with_credit() -> None:
    c = talk()
    for n in range(64):
        c.says("A", n * 1024, 0, bytes(1024))
    assert c.window() <= 1  # the SYN-ACK's window is not scaled, and so one byte smaller than the buffer
    c.says("A", 65535, 0, bytes(1025))
    c.hears()
    assert len(c.listener.got) <= 65536 + 32
    before = len(c.wakes)
    c.connection.consumed(1000)
    assert len(c.wakes) == before, "too little to tell"
    c.connection.consumed(20000)
    assert len(c.wakes) == before + 1
    assert c.window() << 5 >= 21000 - 32


def test_a_stalled_owner_gets_all_that_the_laptop_was_told_it_may_send() -> None:
    c = talk()
    sent, told = 0, 60000
    for size in (1, 1460, 18784, 44703, 31, 33, 1, 7, *(31,) * 100):
        size = min(size, told)
        if size:
            c.says("A", sent, 0, bytes(size))
            sent += size
            told = c.window() << 5
        assert len(c.listener.got) == sent
    assert told == 0
    assert sent <= 65536


def test_urgent_data_and_nonsense_flags_do_no_harm() -> None:
    c = talk()
    c.says("", 0, 0, b"no ack")
    c.says("P", 0, 0, b"no ack")
    c.says("SF", 0, 0, b"x")
    c.says("AP", 0, 0, b"abc")
    assert c.listener.got == b"abc"


def test_acknowledging_the_future_is_answered_and_ignored() -> None:
    c = talk()
    c.says("A", 0, 500, b"abc")
    assert c.listener.got == b""
    assert c.hears() == ["A 0 0"]


# Data out.


def test_the_first_bytes_wake_at_once_the_next_may_wait() -> None:
    c = talk()
    c.wakes.clear()
    c.connection.send(memoryview(b"abc"))
    assert c.wakes == [True]
    assert c.hears() == ["A 0 0 3"]
    c.connection.send(memoryview(b"def"))
    c.connection.send(memoryview(b"ghi"))
    assert c.wakes == [True, False]
    assert c.hears() == ["A 3 0 6"]


def test_a_reply_carries_the_acknowledgement() -> None:
    c = talk()
    c.says("A", 0, 0, b"ping")
    c.connection.send(memoryview(b"pong"))
    assert c.hears() == ["A 0 4 4"]


def test_unacknowledged_data_is_repeated_with_growing_patience() -> None:
    c = talk()
    c.connection.send(memoryview(b"abc"))
    assert c.hears() == ["A 0 0 3"]
    times = []
    for _ in range(4):
        at = c.stack.next_timeout()
        assert at is not None
        times.append(at)
        assert c.passes(at - c.now) == ["A 0 0 3"]
    assert [round(b - a, 3) for a, b in pairwise(times)] == [2.0, 4.0, 8.0]
    c.says("A", 0, 3)
    assert c.passes(100) == []


def test_a_dead_peer_is_given_up() -> None:
    c = talk()
    c.connection.send(memoryview(b"abc"))
    said = c.passes(200)
    assert said == ["A 0 0 3"] * 11 + ["RA 3 0"]
    assert c.listener.closed == [Broken.TIMED_OUT]


def test_three_duplicates_repeat_the_first_segment_only() -> None:
    c = talk()
    for n in range(3):
        c.connection.send(memoryview(b"%03d" % n))
        c.hears()
    c.says("A", 0, 0)
    c.says("A", 0, 0)
    assert c.hears() == []
    c.says("A", 0, 0)
    assert c.hears() == ["A 0 0 3"]
    c.says("A", 0, 0)
    assert c.hears() == []
    c.says("A", 0, 3)
    assert c.hears() == ["A 3 0 3"], "a partial acknowledgement names the next hole"
    c.says("A", 0, 9)
    assert c.hears() == []


def test_a_window_update_is_no_duplicate() -> None:
    c = talk()
    c.connection.send(memoryview(b"abc"))
    c.hears()
    for window in (1280, 2560, 3840, 5120):
        c.says("A", 0, 0, window=window)
    assert c.hears() == []


def test_a_closed_window_is_probed_and_opens() -> None:
    c = talk()
    c.says("A", 0, 0, window=0)
    c.connection.send(memoryview(b"abc"))
    assert c.hears() == []
    assert c.passes(1.5) == ["A -1 0"]
    c.says("A", 0, 0, window=0)
    assert c.passes(2.0) == ["A -1 0"]
    c.says("A", 0, 0, window=1280)
    assert c.hears() == ["A 0 0 3"]


def test_probes_of_a_closed_window_go_on_while_they_are_answered() -> None:
    c = talk()
    c.says("A", 0, 0, window=0)
    c.connection.send(memoryview(b"abc"))
    for _ in range(100):
        assert c.passes(10.5)
        c.says("A", 0, 0, window=0)
    assert c.listener.closed == []


def test_room_is_told_after_send_took_less() -> None:
    c = Conversation(Limits(base_buffer=1000, max_buffer=1000)).established()
    assert c.connection.send(memoryview(bytes(1500))) == 1000
    assert c.connection.send(memoryview(b"x")) == 0
    c.hears()
    c.says("A", 0, 400)
    assert "writable" not in c.listener.calls
    c.says("A", 0, 600)
    assert c.listener.calls == ["writable"]
    c.says("A", 0, 1000)
    assert c.listener.calls == ["writable"]


# Ends.


def test_the_laptop_ends_first() -> None:
    c = talk()
    c.says("AF", 0, 0, b"bye")
    assert c.listener.calls == ["data 3", "eof"]
    assert c.hears() == ["A 0 4"]
    assert c.connection.state is State.CLOSE_WAIT
    c.connection.send(memoryview(b"later"))
    c.connection.send_eof()
    c.connection.send_eof()
    assert c.hears() == ["AF 0 4 5"]
    assert c.connection.send(memoryview(b"no more")) == 0
    c.says("A", 4, 6)
    assert c.listener.closed == [None]
    assert c.stack.tcp_connections == 0
    c.says("AF", 0, 0, b"bye")
    assert c.hears() == ["R 0"]


def test_we_end_first_and_linger_for_the_last_fin() -> None:
    c = talk()
    c.connection.send_eof()
    assert c.hears() == ["AF 0 0"]
    c.says("A", 0, 1)
    assert c.connection.state is State.FIN_WAIT_2
    c.says("A", 0, 1, b"still sending")
    c.says("AF", 13, 1)
    assert c.listener.calls == ["data 13", "eof", "closed"]
    assert c.hears() == ["A 1 14"]
    c.says("AF", 13, 1)
    assert c.hears() == ["A 1 14"], "TIME-WAIT repeats the last acknowledgement"
    c.passes(6)
    c.says("AF", 13, 1)
    assert c.hears() == ["R 1"], "and then forgets"


def test_a_new_syn_replaces_time_wait() -> None:
    c = talk()
    c.connection.send_eof()
    c.hears()
    c.says("AF", 0, 1)
    assert c.listener.closed == [None]
    c.hears()
    c.syn(irs=IRS + 100000)
    assert len(c.listeners) == 2


def test_both_end_at_once() -> None:
    c = talk()
    c.connection.send_eof()
    assert c.hears() == ["AF 0 0"]
    c.says("AF", 0, 0)
    assert c.connection.state is State.CLOSING
    c.says("A", 1, 1)
    assert c.listener.calls == ["eof", "closed"]
    assert c.hears() == ["A 1 1"], "their FIN is acknowledged although the connection is over"


def test_a_fin_ahead_of_a_gap_waits_for_it() -> None:
    c = talk()
    c.says("AF", 3, 0, b"def")
    assert c.listener.calls == []
    c.says("A", 0, 0, b"abc")
    assert c.listener.got == b"abcdef"
    assert c.listener.calls[-1] == "eof"
    c.hears()
    c.says("A", 7, 0, b"after the end")
    assert c.listener.got == b"abcdef"


@pytest.mark.parametrize(
    ("seq", "answer", "ends"), [(0, [], True), (5, ["A 0 0"], False), (-5, [], False), (1 << 20, [], False)]
)
def test_only_an_exact_reset_resets(seq: int, answer: list[str], ends: bool) -> None:
    c = talk()
    c.says("R", seq)
    assert c.hears() == answer
    assert c.listener.closed == ([Broken.RESET] if ends else [])
    assert c.stack.tcp_connections == (0 if ends else 1)


def test_a_reset_at_the_windows_edge_is_challenged() -> None:
    c = talk()
    edge = c.connection._window.edge - c.connection.received
    c.says("R", edge + 1)
    assert c.hears() == []
    c.says("R", edge)
    assert c.hears() == ["A 0 0"]
    assert c.listener.closed == []


def test_a_syn_in_the_middle_is_challenged() -> None:
    c = talk()
    c.syn(irs=IRS + 5000)
    assert c.hears() == ["A 0 0"]
    assert c.listener.closed == []


def test_our_reset_is_silent_towards_the_owner() -> None:
    c = talk()
    c.says("A", 0, 0, b"abc")
    c.hears()
    c.connection.reset()
    c.connection.reset()
    assert c.hears() == ["RA 0 3"]
    assert c.listener.calls == ["data 3"]
    assert c.connection.send(memoryview(b"x")) == 0
    c.connection.send_eof()
    c.connection.consumed(3)
    assert c.passes(100) == []


def test_reset_all_at_the_end_of_the_tunnel() -> None:
    c = Conversation()
    c.syn(port=40001)
    c.established()
    c.stack.reset_all()
    assert sorted(c.hears()) == ["RA -5001 0", "RA 0 0"]
    assert c.stack.tcp_connections == 0


def test_an_idle_connection_is_probed_and_forgotten_when_nothing_answers() -> None:
    c = talk()
    assert c.passes(599) == []
    assert c.passes(2) == ["A -1 0"]
    c.says("A")
    assert c.passes(599) == []
    said = c.passes(200)
    assert said == ["A -1 0"] * 10 + ["RA 0 0"]
    assert c.listener.closed == [Broken.TIMED_OUT]


def test_a_half_closed_connection_is_probed_sooner() -> None:
    c = talk()
    c.connection.send_eof()
    c.hears()
    c.says("A", 0, 1)
    assert c.passes(59) == []
    assert c.passes(2) == ["A 0 0"]


@pytest.mark.parametrize("flags", ["A", "AF"])
def test_the_owner_may_reset_inside_every_call(flags: str) -> None:
    c = talk()
    listener = c.listener

    def reset_on_data(data: memoryview) -> None:
        listener.connection.reset()

    listener.on_data = reset_on_data  # type: ignore[method-assign]  # the table needs one odd owner
    c.says(flags, 0, 0, b"abc")
    assert c.hears() == ["RA 0 3"]
    assert listener.calls == []
    assert c.stack.tcp_connections == 0


def test_an_owner_that_fails_loses_its_connection_not_its_bytes() -> None:
    c = talk()

    def fail(data: memoryview) -> None:
        raise ValueError("a defect of the owner")

    c.listener.on_data = fail  # type: ignore[method-assign]  # the table needs one odd owner
    with pytest.raises(ValueError, match="defect"):
        c.says("A", 0, 0, b"abc")
    assert c.hears() == ["RA 0 3"]


def test_an_owner_that_fails_to_take_a_connection_refuses_it() -> None:
    class Failing(Conversation):
        def on_tcp(self, connection: TcpConnection) -> NoReturn:
            raise ValueError("a defect of the owner")

    c = Failing()
    with pytest.raises(ValueError, match="defect"):
        c.syn()
    assert c.hears() == ["icmp 3 1"]
    assert c.stack.half_open == 0
