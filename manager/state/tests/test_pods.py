from manager.state.pods import FRUITLESS_LIMIT, RETRY_LEAVING, SUCCESSOR_DEADLINE, TROUBLE_GRACE, Rollover
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
    rollover.evicted(pods[0], pods, 0)
    rollover.rolling = True
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
