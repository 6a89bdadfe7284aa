"""The sending half: cutting, windows, repetition."""

from __future__ import annotations

from tunnel.stack.sender import Record, Sender
from tunnel.stack.window import Allowance, Pool


def make(window: int = 100_000, largest: int = 10_000, limit: int = 50_000) -> Sender:
    sender = Sender(1, Allowance(Pool(0), limit, limit), largest)
    sender.offer(1, window)
    return sender


def payload(record: Record | None) -> bytes:
    assert record is not None
    return b"".join(record.buffers)


def test_it_takes_no_more_than_its_allowance() -> None:
    sender = make(limit=1000)
    assert sender.take(memoryview(bytes(700))) == 700
    assert sender.take(memoryview(bytes(700))) == 300
    assert sender.take(memoryview(b"x")) == 0
    assert sender.next_record(0.0) is not None
    assert sender.take(memoryview(b"x")) == 0, "what is in flight counts"
    sender.acknowledge(501)
    assert sender.room == 500


def test_nothing_is_copied() -> None:
    sender = make()
    data = bytes(15_000)
    sender.take(memoryview(data))
    records = [sender.next_record(0.0), sender.next_record(0.0)]
    assert [len(payload(record)) for record in records] == [10_000, 5_000]
    assert all(buffer.obj is data for record in records if record for buffer in record.buffers)
    assert sender.next_record(0.0) is None


def test_small_pieces_travel_together() -> None:
    sender = make()
    for n in range(200):
        sender.take(memoryview(b"%03d" % n))
    record = sender.next_record(0.0)
    assert payload(record) == b"".join(b"%03d" % n for n in range(200))
    assert record is not None
    assert len(record.buffers) == 1, "too many pieces for an iovec are joined"


def test_the_window_bounds_what_leaves_and_small_openings_are_not_used() -> None:
    sender = make(window=8000)
    sender.take(memoryview(bytes(20_000)))
    assert len(payload(sender.next_record(0.0))) == 8000
    sender.offer(1, 8100)
    assert sender.next_record(0.0) is None, "100 bytes more are not worth a packet while 8,000 are in flight"
    sender.acknowledge(8001)
    sender.offer(8001, 100)
    assert len(payload(sender.next_record(0.0))) == 100, "with nothing in flight, nothing else would move it"


def test_a_closed_window_blocks() -> None:
    sender = make(window=0)
    sender.take(memoryview(b"x"))
    assert sender.next_record(0.0) is None
    assert sender.blocked


def test_the_end_goes_with_the_last_byte() -> None:
    sender = make()
    sender.take(memoryview(b"bye"))
    sender.fin_wanted = True
    record = sender.next_record(0.0)
    assert record is not None
    assert (record.fin, record.length, sender.next) == (True, 3, 5)
    assert sender.next_record(0.0) is None
    assert sender.acknowledge(5) is record


def test_the_end_waits_for_room_of_its_own() -> None:
    sender = make(window=3)
    sender.take(memoryview(b"bye"))
    sender.fin_wanted = True
    record = sender.next_record(0.0)
    assert record is not None
    assert not record.fin
    sender.acknowledge(4)
    assert sender.blocked
    sender.offer(4, 10)
    record = sender.next_record(0.0)
    assert record is not None
    assert (record.fin, record.length) == (True, 0)


def test_repetition_leaves_out_what_has_arrived_and_holds_back_what_is_new() -> None:
    sender = make()
    sender.take(memoryview(b"0123456789"))
    sender.next_record(0.0)
    sender.take(memoryview(b"abc"))
    sender.next_record(0.0)
    sender.take(memoryview(b"new"))
    assert sender.acknowledge(5) is None
    record = sender.repeat()
    assert payload(record) == b"456789"
    assert record is not None
    assert (record.begin, record.end, record.repeated) == (5, 11, True)
    assert sender.next_record(0.0) is None, "repairing"
    sender.acknowledge(11)
    assert payload(sender.repeat()) == b"abc"
    sender.acknowledge(14)
    assert payload(sender.next_record(0.0)) == b"new"
