from collections.abc import Mapping
from typing import Any

from manager.state.engagements import Claims, Outcome, Verdict, judge, wishes
from manager.state.injection import Wish
from manager.state.model import Engagement, EngagementPhase, Session, Target
from manager.state.policy import PolicyWatch
from manager.state.tests.samples import NAMESPACE, engagement, session, working_policy
from tunnel.agentconfig import ManagerAddress, Workload

ECHO = Target("shop", "Deployment", "echo")
TEMPLATE: Mapping[str, Any] = {
    "spec": {
        "containers": [
            {"name": "app", "image": "app", "ports": [{"containerPort": 8080}]},
            {"name": "side", "image": "side", "ports": [{"containerPort": 9090}]},
        ]
    }
}


def _wish(target: Target) -> Wish:
    return Wish(
        image="agent",
        pull_policy="Never",
        root_pem="root",
        manager=ManagerAddress("m", "m", 8444),
        workload=Workload(target.kind, target.name),
        containers=frozenset(),
    )


def _judge(
    *engagements: Engagement,
    sessions: tuple[Session, ...] = (session(), session("s2", "bob")),
    policy: PolicyWatch | None = None,
    template: Mapping[str, Any] | None = TEMPLATE,
    **more: Any,
) -> dict[str, Verdict]:
    claims = Claims(
        namespace=NAMESPACE,
        sessions={each.uid: each for each in sessions},
        policy=policy or working_policy(),
        templates={} if ECHO in more.get("unreadable", ()) else {ECHO: template},
        wish=_wish,
        **{"unreadable": {}, "untouched": frozenset(), "elsewhere": frozenset(), **more},
    )
    return judge(engagements, claims)


def _reason(verdicts: dict[str, Verdict], uid: str = "e1") -> str:
    assert verdicts[uid].outcome is Outcome.FAIL
    return verdicts[uid].reason


def test_an_engagement_of_ones_own_session_is_accepted() -> None:
    assert _judge(engagement("e1"))["e1"].outcome is Outcome.ACCEPT


def test_a_port_that_is_not_declared_may_be_engaged() -> None:
    ports = [{"containerPort": 7000, "protocol": "UDP"}]
    assert _judge(engagement("e1", ports=ports))["e1"].outcome is Outcome.ACCEPT


def test_the_older_pending_one_wins_and_the_other_learns_who_has_it() -> None:
    verdicts = _judge(engagement("e2", "bob", session_uid="s2", created=1001), engagement("e1"))
    assert verdicts["e1"].outcome is Outcome.ACCEPT
    assert _reason(verdicts, "e2") == "Conflict"
    assert "replaced by alice (alices-laptop)" in verdicts["e2"].message


def test_who_was_accepted_keeps_it_whoever_was_created_first() -> None:
    holder = engagement(
        "e2", "bob", session_uid="s2", created=1001, phase="Accepted", acceptedAt="2026-01-02T03:04:05Z"
    )
    verdicts = _judge(engagement("e1", created=900.5), holder, policy=_since(800))
    assert "e2" not in verdicts
    assert verdicts["e1"].message == (
        "Container app of deployment echo is replaced by bob (bobs-laptop) since 2026-01-02T03:04:05Z."
    )


def _since(second: float) -> PolicyWatch:
    policy = PolicyWatch()
    policy.refused(second, second)
    return policy


def test_two_containers_of_one_workload_go_to_two_users() -> None:
    other = engagement("e2", "bob", session_uid="s2", container="side", ports=[])
    verdicts = _judge(engagement("e1"), other)
    assert {verdict.outcome for verdict in verdicts.values()} == {Outcome.ACCEPT}


def test_two_containers_that_do_not_fit_into_one_agent_do_not_go_to_two_users() -> None:
    holder = engagement("e1", phase="Active", ports=[{"containerPort": 7000}])
    same_port = engagement("e2", "bob", session_uid="s2", container="side", ports=[{"containerPort": 7000}])
    verdicts = _judge(holder, same_port)
    assert _reason(verdicts, "e2") == "Conflict"
    assert verdicts["e2"].message == "Port 7000 goes to alice already, who replaces container app."
    other_protocol = [{"containerPort": 7000, "protocol": "UDP"}]
    beside = engagement("e2", "bob", session_uid="s2", container="side", ports=other_protocol)
    assert _judge(holder, beside)["e2"].outcome is Outcome.ACCEPT
    app, side = TEMPLATE["spec"]["containers"]
    names = [
        {**app, "ports": [{"containerPort": 8080, "name": "main"}]},
        {**side, "ports": [{"containerPort": 9090, "name": "main", "protocol": "UDP"}]},
    ]
    assert _reason(_judge(holder, beside, template={"spec": {"containers": names}}), "e2") == "NotInjectable"


def test_a_failed_one_holds_nothing() -> None:
    verdicts = _judge(engagement("e1", "bob", session_uid="s2", phase="Failed"), engagement("e2"))
    assert verdicts["e2"].outcome is Outcome.ACCEPT


def test_nothing_is_accepted_while_false_names_may_get_in() -> None:
    assert _judge(engagement("e1"), policy=PolicyWatch()) == {}
    assert _reason(_judge(engagement("e1"), policy=_since(1000))) == "CreatedBeforePolicy"


def test_the_session_must_be_ones_own() -> None:
    verdicts = _judge(engagement("e1", "mallory"))
    assert _reason(verdicts) == "NotYourSession"


def test_without_its_session_an_engagement_goes_whatever_its_phase() -> None:
    for phase in EngagementPhase:
        verdicts = _judge(engagement("e1", session_uid="gone", phase=phase.value))
        assert verdicts["e1"].outcome is Outcome.DELETE


def test_engagements_of_another_manager_are_left_alone() -> None:
    other = {"namespace": "elsewhere", "name": "s1", "uid": "s1"}
    assert _judge(engagement("e1", session=other)) == {}


def test_what_cannot_be_engaged_is_said() -> None:
    assert _reason(_judge(engagement("e1"), template=None)) == "WorkloadNotFound"
    assert _reason(_judge(engagement("e1", container="nope", ports=[]))) == "NotInjectable"
    assert _reason(_judge(engagement("e1", ports=[{"containerPort": 9090}]))) == "BadPort"
    assert _reason(_judge(engagement("e1", ports=[{"containerPort": 70000}]))) == "BadPort"
    assert _reason(_judge(engagement("e1", ports=[{"containerPort": 80}, {"containerPort": 80}]))) == "BadPort"
    host_network = {"spec": {**TEMPLATE["spec"], "hostNetwork": True}}
    assert _reason(_judge(engagement("e1"), template=host_network)) == "NotInjectable"


def test_what_the_manager_may_not_read_is_said() -> None:
    verdicts = _judge(engagement("e1"), unreadable={ECHO: "deployments.apps is forbidden"})
    assert _reason(verdicts) == "WorkloadUnreadable"
    assert "deployments.apps is forbidden" in verdicts["e1"].message


def test_where_the_webhook_never_looks_nothing_is_accepted() -> None:
    verdicts = _judge(engagement("e1"), untouched=frozenset({"shop"}))
    assert _reason(verdicts) == "NamespaceLeftAlone"
    assert "namespace shop" in verdicts["e1"].message


def test_a_workload_is_one_managers_as_long_as_that_lives() -> None:
    other = {"namespace": "elsewhere", "name": "s1", "uid": "s9"}
    held = engagement("e0", "bob", session=other, phase="Active", container="side")
    verdicts = _judge(held, engagement("e1"), elsewhere=frozenset({"elsewhere"}))
    assert _reason(verdicts) == "Conflict"
    assert "engagement e0 of the traffic-manager in namespace elsewhere" in verdicts["e1"].message
    assert "e0" not in verdicts
    assert _judge(held, engagement("e1"))["e1"].outcome is Outcome.ACCEPT


def test_wishes_are_the_accepted_ones() -> None:
    accepted = engagement("e1", phase="Active")
    assert wishes([accepted, engagement("e2", container="side")], NAMESPACE) == {ECHO: [accepted]}
