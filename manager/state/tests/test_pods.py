from manager.state.pods import (
    BUDGET_PATIENCE,
    FRUITLESS_LIMIT,
    OVERDUE,
    READY_GRACE,
    RETRY_LEAVING,
    ROLLOUT_DEADLINE,
    SUCCESSOR_DEADLINE,
    TROUBLE_GRACE,
    Rollover,
)
from manager.state.tests.samples import pod

APP = frozenset({"app"})
NONE: frozenset[str] = frozenset()


def test_pods_enter_one_at_a_time_each_after_its_predecessors_agent_reported() -> None:
    rollover = Rollover(120)
    old = [pod("a"), pod("b")]
    plan = rollover.step(APP, old, (), 0)
    assert plan.evict == old[0]
    rollover.evicted(old[0], old, 0)
    # Not seen to go yet; then going, and no successor yet.
    assert rollover.step(APP, old, (), 0.1).evict is None
    going = pod("a", terminating=True)
    assert rollover.step(APP, [going, old[1]], (), 0.2).evict is None
    # The successor is there, and then its agent.
    new = pod("c", "app", running="traffic-agent")
    waiting = rollover.step(APP, [going, old[1], new], (), 0.5)
    assert waiting.evict is None
    assert "pod c" in waiting.waiting_for
    assert rollover.step(APP, [going, old[1], new], {"uid-c"}, 1).evict == old[1]


def test_active_means_that_no_original_runs_any_more() -> None:
    rollover = Rollover(120)
    new = pod("b", "app", running="traffic-agent")
    going = pod("a", terminating=True)
    plan = rollover.step(APP, [going, new], {"uid-b"}, 0)
    assert not plan.fulfilled
    assert "the original in pod a" in plan.waiting_for
    ended = pod("a", terminating=True, running="")
    assert rollover.step(APP, [ended, new], {"uid-b"}, 1).fulfilled


def test_between_an_eviction_and_its_successor_nothing_else_is_evicted() -> None:
    """A pod of one replica: for a moment none is wrong, and then the successor comes without agent."""
    rollover = Rollover(120)
    pods = [pod("a")]
    evictions = 0
    for number in range(20):
        plan = rollover.step(APP, pods, (), float(number))
        if plan.failed:
            break
        if plan.evict is not None:
            evictions += 1
            rollover.evicted(plan.evict, pods, float(number))
            rollover.step(APP, [pod(plan.evict.name, terminating=True, running="")], (), number + 0.5)
            pods = [pod(f"next-{number}")]
    assert evictions == FRUITLESS_LIMIT
    assert "without the agent" in plan.failed
    assert rollover.step(APP, pods, (), 25).evict is None


def test_no_successor_fails() -> None:
    rollover = Rollover(120)
    rollover.step(APP, [pod("a")], (), 0)
    rollover.evicted(pod("a"), [pod("a")], 0)
    assert not rollover.step(APP, [], (), 1).failed
    assert "no successor of pod a" in rollover.step(APP, [], (), SUCCESSOR_DEADLINE + 1).failed


def test_an_agent_that_does_not_report_fails_after_the_deadline() -> None:
    rollover = Rollover(120)
    new = pod("b", "app", running="")
    rollover.step(APP, [new], (), 0)
    assert not rollover.step(APP, [new], (), 119).failed
    assert "within 120 seconds" in rollover.step(APP, [new], (), 121).failed


def test_an_agent_that_cannot_start_fails_with_the_kubelets_reason() -> None:
    pulling = pod("b", "app", running="", trouble="container traffic-agent: ImagePullBackOff")
    rollover = Rollover(120)
    assert not rollover.step(APP, [pulling], (), 0).failed
    assert "ImagePullBackOff" in rollover.step(APP, [pulling], (), TROUBLE_GRACE + 1).failed
    never = pod("b", "app", running="", trouble="container traffic-agent: ErrImageNeverPull", hopeless=True)
    assert "ErrImageNeverPull" in Rollover(120).step(APP, [never], (), 0).failed


def test_a_failed_wish_is_undone() -> None:
    rollover = Rollover(120)
    new = pod("b", "app", running="", trouble="bad image", hopeless=True)
    assert rollover.step(APP, [new], (), 0).failed
    assert rollover.step(NONE, [new], (), 0.1).evict == new


def test_leaving_waits_for_ready_successors() -> None:
    rollover = Rollover(120)
    pods = [pod("a", "app"), pod("b", "app")]
    assert rollover.step(NONE, pods, {"uid-a", "uid-b"}, 0).evict == pods[0]
    rollover.evicted(pods[0], pods, 0)
    starting = pod("c", ready=False)
    assert rollover.step(NONE, [pods[1], starting], (), 1).evict is None
    assert rollover.step(NONE, [pods[1], pod("c")], (), 2).evict == pods[1]


def test_leaving_is_tried_again_after_a_pause() -> None:
    rollover = Rollover(120)
    pods = [pod("a", "app")]
    assert rollover.step(NONE, pods, (), 0).evict
    assert rollover.give_up("forbidden", 0).failed == "forbidden"
    assert rollover.step(NONE, pods, (), 1).evict is None
    assert rollover.step(NONE, pods, (), RETRY_LEAVING + 1).evict


def test_a_rollout_is_begun_once_and_waited_for() -> None:
    rollover = Rollover(120)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    rollover.evicted(pods[0], pods, 0, rolling=True)
    new = pod("c", "app", running="traffic-agent")
    for now in range(1, 10):
        assert rollover.step(APP, [*pods, new], {"uid-c"}, now).evict is None
    assert rollover.step(APP, [new], {"uid-c"}, 11).fulfilled


def test_a_pod_that_replaces_something_else_is_evicted_too() -> None:
    both = pod("a", "app side", running="traffic-agent")
    assert Rollover(120).step(APP, [both], {"uid-a"}, 0).evict == both


def test_finished_pods_do_not_count() -> None:
    done = pod("a", finished=True, running="")
    assert Rollover(120).step(NONE, [done], (), 0).fulfilled


def test_a_slow_end_is_no_missing_successor() -> None:
    """As of a StatefulSet: the successor comes when the pod is gone, and that may take its whole grace period."""
    rollover = Rollover(120, in_place=True)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    rollover.evicted(pods[0], pods, 0)
    for now in range(1, 300):
        plan = rollover.step(APP, [pod("a", terminating=True), pods[1]], (), now)
        assert plan.evict is None
        assert plan.waiting_for == "pod a to end"
    assert rollover.step(APP, [pods[1]], (), 300).waiting_for == "the successor of pod a"
    assert not rollover.step(APP, [pods[1]], (), 300 + SUCCESSOR_DEADLINE - 1).failed
    assert "no successor of pod a" in rollover.step(APP, [pods[1]], (), 300 + SUCCESSOR_DEADLINE).failed


def test_whoever_changes_their_mind_finds_no_second_pod_evicted() -> None:
    rollover = Rollover(120, in_place=True)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    rollover.evicted(pods[0], pods, 0)
    for now, there in ((1, [pod("a", terminating=True), pods[1]]), (3, [pods[1]])):
        assert not rollover.step(NONE, there, (), now).fulfilled
        assert rollover.step(APP, there, (), now + 1).evict is None
    assert rollover.step(APP, [pods[1], pod("c", "app", running="")], {"uid-c"}, 5).evict == pods[1]


def test_after_a_failure_too_the_successor_comes_first() -> None:
    rollover = Rollover(120, in_place=True)
    entered, old = pod("a", "app", running="traffic-agent"), pod("b")
    rollover.step(APP, [entered, old], {"uid-a"}, 0)
    rollover.evicted(old, [entered, old], 0)
    rollover.step(APP, [entered], {"uid-a"}, 1)
    assert rollover.give_up("quota", 5).failed == "quota"
    waiting = rollover.step(NONE, [entered], {"uid-a"}, 6)
    assert (waiting.evict, waiting.failed) == (None, "")
    assert rollover.step(NONE, [entered, pod("d", ready=False)], (), 8).evict is None
    assert rollover.step(NONE, [entered, pod("d")], (), 9).evict == entered
    # It never came: then those that serve nobody are given back all the same.
    rollover = Rollover(120, in_place=True)
    rollover.step(APP, [entered, old], {"uid-a"}, 0)
    rollover.evicted(old, [entered, old], 0)
    rollover.step(APP, [entered], {"uid-a"}, 1)
    rollover.give_up("quota", 5)
    assert rollover.step(NONE, [entered], (), 5 + SUCCESSOR_DEADLINE).evict == entered


def test_a_workload_is_asked_why_when_a_successor_is_overdue() -> None:
    rollover = Rollover(120)
    rollover.step(APP, [pod("a")], (), 0)
    rollover.evicted(pod("a"), [pod("a")], 0)
    rollover.step(APP, [pod("a", terminating=True)], (), 1)
    assert not rollover.step(APP, [], (), 2).overdue
    assert rollover.step(APP, [], (), 2.1 + OVERDUE).overdue


def test_active_only_when_the_successor_of_the_last_has_come() -> None:
    rollover = Rollover(120, in_place=True)
    entered, old = pod("a", "app", running="traffic-agent"), pod("b")
    rollover.step(APP, [entered, old], {"uid-a"}, 0)
    rollover.evicted(old, [entered, old], 0)
    assert not rollover.step(APP, [entered], {"uid-a"}, 1).fulfilled
    assert rollover.step(APP, [entered, pod("c", "app", running="")], {"uid-a", "uid-c"}, 2).fulfilled


def test_a_workload_that_was_scaled_down_meanwhile_is_complete() -> None:
    for wanted, rest in ((APP, pod("a", "app", running="traffic-agent")), (NONE, pod("a"))):
        rollover = Rollover(120)
        old = pod("b") if wanted else pod("b", "app")
        rollover.step(wanted, [rest, old], {"uid-a"}, 0)
        rollover.evicted(old, [rest, old], 0)
        rollover.step(wanted, [rest], {"uid-a"}, 1)
        assert rollover.step(wanted, [rest], {"uid-a"}, 1 + SUCCESSOR_DEADLINE).fulfilled


def test_what_somebody_else_sent_away_is_waited_for() -> None:
    going = pod("a", terminating=True, ending_since=1000.0)
    old = pod("b", created=500.0)
    assert "pod a to end" in Rollover(120).step(APP, [going, old], (), 0).waiting_for
    beside = pod("c", "app", running="", created=1000.0)
    assert Rollover(120).step(APP, [going, old, beside], {"uid-c"}, 0).evict == old
    # The successor of a pod with an identity comes after it, so that the new one is another's.
    assert Rollover(120, in_place=True).step(APP, [going, old, beside], {"uid-c"}, 0).evict is None
    # A pod that serves nobody may go at any time.
    assert Rollover(120).step(APP, [going, pod("b", ready=False)], (), 0).evict is not None


def test_the_next_goes_when_the_last_is_ready_which_is_not_waited_for_for_ever() -> None:
    rollover = Rollover(120)
    new, old = pod("a", "app", running="traffic-agent", ready=False), pod("b")
    waiting = rollover.step(APP, [new, old], {"uid-a"}, 0)
    assert waiting.waiting_for == "pod a to be ready"
    assert rollover.step(APP, [new, old], {"uid-a"}, READY_GRACE).evict is None
    assert rollover.step(APP, [new, old], {"uid-a"}, READY_GRACE + 1).evict == old
    assert Rollover(120).step(APP, [pod("a", "app"), old], {"uid-a"}, 1).evict == old


def test_one_that_does_not_get_ready_keeps_no_other_replaced() -> None:
    rollover = Rollover(120)
    broken, left = pod("a", ready=False, trouble="container app: CrashLoopBackOff"), pod("b", "app")
    assert rollover.step(NONE, [broken, left], (), 0).evict is None
    assert rollover.step(NONE, [broken, left], (), READY_GRACE + 1).evict == left


def test_a_budget_may_say_no_for_a_while_but_not_for_the_only_pod() -> None:
    rollover = Rollover(120)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    assert rollover.patient(pods, 0)
    rollover.held(0)
    rollover.held(10)
    assert rollover.patient(pods, BUDGET_PATIENCE - 1)
    assert not rollover.patient(pods, BUDGET_PATIENCE)
    rollover.evicted(pods[0], pods, 20)
    assert rollover.patient(pods, 100)
    assert not rollover.patient(pods[:1], 0)


def test_on_leave_pods_go_in_the_order_of_their_numbers() -> None:
    """A StatefulSet makes none before those of lower numbers are ready; agents that serve nobody are not."""
    rollover = Rollover(120, in_place=True)
    pods = [pod(name, "app", running="traffic-agent", ready=name == "web-2") for name in ("web-10", "web-2", "web-3")]
    assert rollover.step(frozenset(), pods, (), 0).evict == pods[1]
    # The only pod is waited for too: when it is not ready any more, no budget keeps it.
    assert rollover.patient(pods[:1], 0)


def test_a_rollout_that_stops_half_way_is_given_up() -> None:
    rollover = Rollover(120)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    rollover.evicted(pods[0], pods, 0, rolling=True)
    half = [pods[1], pod("c", "app", running="")]
    assert not rollover.step(APP, half, {"uid-c"}, ROLLOUT_DEADLINE - 1).failed
    assert not rollover.step(APP, half, {"uid-c"}, 2 * ROLLOUT_DEADLINE - 2).failed
    assert "has not gone on" in rollover.step(APP, half, {"uid-c"}, 2 * ROLLOUT_DEADLINE).failed


def test_a_rollout_without_agents_is_given_up_when_it_is_through() -> None:
    rollover = Rollover(120)
    pods = [pod("a"), pod("b")]
    rollover.step(APP, pods, (), 0)
    rollover.evicted(pods[0], pods, 0, rolling=True)
    assert not rollover.step(APP, [pods[1], pod("c")], (), 5).failed
    assert "without the agent" in rollover.step(APP, [pod("c"), pod("d")], (), 10).failed


def test_giving_back_in_vain_is_tried_ever_more_seldom() -> None:
    rollover, now, evictions = Rollover(120), 0.0, []
    pods = [pod("p0", "app")]
    while now < 4000:
        plan = rollover.step(NONE, pods, (), now)
        if plan.evict is not None:
            evictions.append(now)
            rollover.evicted(plan.evict, pods, now)
            pods = [pod(f"p{len(evictions)}", "app")]
        now += 1.0
    assert len(evictions) < FRUITLESS_LIMIT + 8
    assert evictions[-1] - evictions[-2] > 900


def test_why_it_failed_is_said_to_whoever_asks_for_the_same_meanwhile() -> None:
    rollover = Rollover(120)
    rollover.step(APP, [pod("a")], (), 0)
    rollover.give_up("forbidden", 0)
    assert rollover.step(APP, [pod("a")], (), 1).failed == "forbidden"
