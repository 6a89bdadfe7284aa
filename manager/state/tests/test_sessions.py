from typing import Any

from manager.state.policy import PolicyWatch
from manager.state.sessions import KEEP_ENDED, Decision, Leases, Step, decide
from manager.state.tests.samples import session, working_policy


def _decide(it: Any, **changes: Any) -> Decision:
    settings: dict[str, Any] = {
        "silence": 0.0,
        "lease": 300.0,
        "policy": working_policy(),
        "pod_uid": "me",
        "root_pem": "root",
        "certificate_life": 14400.0,
        "wall": 10_000.0,
    }
    return decide(it, **{**settings, **changes})


ACTIVE = {"root": "root", "managerPodUid": "me", "expiresAt": "1970-01-01T06:00:00Z"}


def test_a_pending_session_is_accepted_once_false_names_are_refused() -> None:
    pending = session(phase="Pending")
    assert _decide(pending).step is Step.ACCEPT
    assert _decide(pending, policy=PolicyWatch()).step is Step.NOTHING


def test_a_session_from_before_the_policy_is_refused_by_name() -> None:
    policy = PolicyWatch()
    policy.refused(changed=1000, now=1001)  # the session is of second 1000
    decision = _decide(session(phase="Pending"), policy=policy)
    assert (decision.step, decision.reason) == (Step.REFUSE, "CreatedBeforePolicy")


def test_the_second_in_which_the_policy_began_does_not_count() -> None:
    policy = PolicyWatch()
    policy.refused(changed=990, now=1000)
    assert policy.works_since == 992
    assert policy.trusts(992) is False
    assert policy.trusts(993) is True


def test_a_changed_policy_begins_anew() -> None:
    policy = working_policy()
    policy.refused(changed=2000, now=2001)
    assert policy.trusts(1500) is False
    policy.admitted()
    assert policy.trusts(3000) is None


def test_after_a_false_name_was_let_in_only_what_comes_then_counts() -> None:
    policy = working_policy()
    policy.admitted()
    policy.refused(changed=policy.changed, now=3000)  # the policies say that they did not change
    assert policy.trusts(2999) is False
    assert policy.trusts(3001) is True


def test_an_active_session_is_left_alone() -> None:
    assert _decide(session(**ACTIVE)).step is Step.NOTHING


def test_a_new_manager_says_so_and_keeps_the_certificate() -> None:
    assert _decide(session(**{**ACTIVE, "managerPodUid": "before"})).step is Step.ADOPT


def test_another_root_signs_anew() -> None:
    assert _decide(session(**{**ACTIVE, "root": "other"})).step is Step.SIGN


def test_only_a_renewed_lease_renews_the_certificate() -> None:
    old = session(**{**ACTIVE, "expiresAt": "1970-01-01T03:00:00Z"})
    assert _decide(old, silence=1).step is Step.SIGN
    assert _decide(old, silence=200).step is Step.NOTHING


def test_a_silent_session_expires_and_is_deleted_later() -> None:
    assert _decide(session(**ACTIVE), silence=301).step is Step.EXPIRE
    expired = session(phase="Expired")
    assert _decide(expired, silence=301).step is Step.NOTHING
    assert _decide(expired, silence=301 + KEEP_ENDED).step is Step.DELETE
    assert _decide(expired, silence=299 + KEEP_ENDED).step is Step.NOTHING
    assert _decide(session(phase="Refused"), silence=1 + KEEP_ENDED).step is Step.DELETE


def test_only_changes_of_the_annotation_are_signs_of_life() -> None:
    leases = Leases(10)
    leases.observe([session(renewed="a")], 0)
    leases.observe([session(renewed="a")], 8)
    assert leases.silence("s1", 9) == 9
    leases.observe([session(renewed="b")], 9)
    assert leases.silence("s1", 9) == 0


def test_nobody_could_renew_while_the_api_server_was_away() -> None:
    leases = Leases(10)
    leases.observe([session()], 0)
    leases.forgive(9)
    assert leases.silence("s1", 19) == 10


def test_the_next_end_is_the_soonest_to_come() -> None:
    leases = Leases(10)
    assert leases.next_end(0) is None
    leases.observe([session("s1")], 0)
    leases.observe([session("s1"), session("s2")], 4)
    assert leases.next_end(5) == 5
    assert leases.next_end(11) == 3
