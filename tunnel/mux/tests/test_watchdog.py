"""What is due, when."""

from __future__ import annotations

from tunnel.mux.watchdog import Due, Watchdog


def test_an_idle_carrier_is_pinged_and_then_suspected() -> None:
    dog = Watchdog(100.0, idle=15.0)
    assert dog.deadline() == 115.0
    assert dog.check(114.9) is Due.NOTHING
    assert dog.check(115.0) is Due.PING
    dog.pinged(115.0)
    assert dog.deadline() == 117.0
    assert dog.check(117.0) is Due.SUSPICION
    assert dog.suspect
    assert dog.check(118.0) is Due.NOTHING
    assert dog.deadline() is None


def test_anything_received_is_life() -> None:
    dog = Watchdog(0.0, idle=15.0)
    dog.sent(10.0)
    dog.life(11.5, outstanding=True)
    assert dog.check(12.5) is Due.NOTHING
    assert dog.check(13.5) is Due.SUSPICION
    dog.life(14.0, outstanding=False)
    assert not dog.suspect
    assert dog.deadline() == 29.0


def test_waiting_counts_from_the_first_unanswered_batch() -> None:
    dog = Watchdog(0.0, idle=15.0)
    dog.sent(5.0)
    dog.sent(6.9)
    assert dog.check(7.0) is Due.SUSPICION


def test_a_silence_before_the_first_batch_does_not_count() -> None:
    dog = Watchdog(0.0, idle=15.0)
    dog.sent(14.0)
    assert dog.check(15.0) is Due.PING
    assert dog.check(15.9) is Due.PING
    assert dog.check(16.0) is Due.SUSPICION
