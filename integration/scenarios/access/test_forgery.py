"""Sessions and engagements under false names, or with what nobody may set: the API server or the manager refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from integration.cluster.errors import ClusterError
from integration.scenarios.access.objects import (
    Object,
    RawSession,
    create,
    engagement_object,
    judged,
    session_object,
    where,
)
from integration.scenarios.access.stage import Stage
from integration.scenarios.access.ways import Forward, outcomes_of
from integration.scenarios.conftest import RELEASE
from integration.scenarios.user import eventually
from integration.scenarios.workloads import get
from tpd.session.identity import new_identity

pytestmark = pytest.mark.cluster

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "stranger", "uid": "00000000-0000-4000-8000-000000000000"}
FINALIZER = "example.org/keep"
NOT_THEIRS: list[dict[str, Any]] = [{"finalizers": [FINALIZER]}, {"ownerReferences": [OWNER]}]
"""Metadata that no user may set."""
MERGE = ("--type=merge", "-p")


def forbidden(stage: Stage, user: str, *words: str, stdin: Object | None = None) -> str:
    """kubectl as this user must be refused; how."""
    with pytest.raises(ClusterError) as refusal:
        stage.cluster.kubectl(f"--as={user}", *words, stdin=json.dumps(stdin) if stdin else None)
    text = str(refusal.value)
    assert "orbidden" in text, text
    return text


def honest(stage: Stage, user: str) -> list[tuple[str, Callable[..., Object]]]:
    """(namespace, maker) of an honest session and an honest engagement of this user; metadata as keywords."""
    session = stage.alices_session() if user == "alice" else stage.idle.item
    key = new_identity().public_key
    return [
        (stage.manager, lambda **metadata: session_object(user, key, **metadata)),
        (stage.namespace, lambda **metadata: engagement_object(user, session, "plain", "app", **metadata)),
    ]


def alices(stage: Stage) -> list[Object]:
    """Her session and her engagement."""
    return [stage.alices_session(), stage.engagements["app"]]


def mallorys(stage: Stage) -> list[Object]:
    """The same of mallory's."""
    return [stage.engaged.item, stage.engagements["side"]]


def test_nobody_creates_under_a_false_name(stage: Stage) -> None:
    for namespace, body in honest(stage, "alice"):
        for liar, *group in (("mallory",), ("admin", "--as-group=system:masters")):
            text = forbidden(stage, liar, *group, "create", "-n", namespace, "-f", "-", stdin=body())
            assert 'spec.user is "alice"' in text
            assert f'you are "{liar}"' in text


def test_nobody_creates_with_a_finalizer_an_owner_or_a_status(stage: Stage) -> None:
    for namespace, body in honest(stage, "mallory"):
        words = ("create", "--dry-run=server", "-o", "json", "-n", namespace, "-f", "-")
        for metadata in NOT_THEIRS:
            forbidden(stage, "mallory", *words, stdin=body(**metadata))
        wishful = {**body(), "status": {"phase": "Active"}}
        created = stage.cluster.kubectl("--as=mallory", *words, stdin=json.dumps(wishful))
        assert "status" not in json.loads(created)


def test_nobody_updates_what_is_anothers(stage: Stage) -> None:
    renewed = json.dumps({"metadata": {"annotations": {"tpctl.io/renewed": "2030-01-01T00:00:00Z"}}})
    for item in alices(stage):
        assert 'spec.user is "alice"' in forbidden(stage, "mallory", "patch", *where(item), *MERGE, renewed)


def test_nobody_updates_spec_status_finalizers_or_owners_even_of_their_own(stage: Stage) -> None:
    for item, field in zip(mallorys(stage), ({"namespace": "kube-system"}, {"container": "app"}), strict=True):
        for metadata in NOT_THEIRS:
            forbidden(stage, "mallory", "patch", *where(item), *MERGE, json.dumps({"metadata": metadata}))
        for change in ({"user": "alice"}, field):
            with pytest.raises(ClusterError, match="spec is immutable"):
                stage.cluster.kubectl("--as=mallory", "patch", *where(item), *MERGE, json.dumps({"spec": change}))
        status = ("--subresource=status", *MERGE, '{"status":{"phase":"Expired"}}')
        assert "/status" in forbidden(stage, "mallory", "patch", *where(item), *status)


def test_nobody_deletes_what_is_anothers(stage: Stage) -> None:
    for item in alices(stage):
        assert "belongs to alice" in forbidden(stage, "mallory", "delete", *where(item))
        assert stage.cluster.kubectl("get", *where(item), "-o", "name")
    # Nor all of them in one request; those of her own that come first may go, so it is not done for real.
    path = f"/apis/tpctl.io/v1alpha1/namespaces/{stage.namespace}/engagements?dryRun=All"
    forbidden(stage, "mallory", "delete", "--raw", path)
    # Whoever may `manage` them, as cluster admins, may.
    stage.cluster.kubectl("delete", "--dry-run=server", *where(stage.engagements["app"]))


@pytest.mark.parametrize("reason", ["NotYourSession", "Conflict", "BadPort"])
def test_an_honest_engagement_of_what_is_not_hers_fails(stage: Stage, reason: str) -> None:
    body = {
        "NotYourSession": engagement_object("mallory", stage.alices_session(), "plain", "app"),
        "Conflict": engagement_object("mallory", stage.idle.item, "victim", "app"),
        "BadPort": engagement_object("mallory", stage.idle.item, "other", "side", 8080),  # a port of container `app`
    }[reason]
    status = judged(stage.cluster, create(stage.cluster, "mallory", stage.namespace, body), "Failed")["status"]
    assert status["reason"] == reason
    assert stage.apps.containers("plain") == ["app", "side"]


@contextmanager
def without_the_policy(stage: Stage) -> Iterator[None]:
    """As long as the API server lets false names in, because the policy's binding is gone."""
    kind, name = "validatingadmissionpolicybinding", f"{RELEASE}-{stage.manager}-identity"
    binding = get(stage.cluster, kind, name)
    binding["metadata"] = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
    false = json.dumps(session_object("alice", "x"))

    def refused() -> bool:
        try:
            words = ("--as=mallory", "create", "--dry-run=server", "-n", stage.manager, "-f", "-")
            stage.cluster.kubectl(*words, stdin=false)
        except ClusterError:
            return True
        return False

    def accepted() -> bool:
        key = new_identity().public_key
        again = create(stage.cluster, "mallory", stage.manager, session_object("mallory", key))
        return bool(judged(stage.cluster, again, "Active", "Refused")["status"]["phase"] == "Active")

    stage.cluster.kubectl("delete", kind, name)
    try:
        eventually("false names to be let in", lambda: not refused())
        yield
    finally:
        stage.cluster.kubectl("create", "-f", "-", stdin=json.dumps(binding))
        eventually("false names to be refused", refused)
        eventually("honest sessions to be accepted again", accepted, every=0.5)


@dataclass(frozen=True)
class Gap:
    """What mallory made while the policy did not work, and what the manager did with it then."""

    session: Object
    """In alice's name."""
    engagement: Object
    """In alice's name, for alice's session."""
    honest: Object
    """A session in her own."""
    accepted: list[Object]
    """Those of the three that had a phase before the policy was back."""
    kept: RawSession
    """An older one of hers, to which she gave a finalizer."""


def _set_finalizers(stage: Stage, session: RawSession, finalizers: list[str]) -> None:
    change = json.dumps({"metadata": {"finalizers": finalizers}})
    stage.cluster.kubectl("--as=mallory", "patch", *where(session.item), *MERGE, change)


@pytest.fixture(scope="module")
def gap(stage: Stage) -> Iterator[Gap]:
    """The policy is away for a moment."""
    key = new_identity().public_key
    alices_session = stage.alices_session()
    kept = RawSession.open(stage.cluster, stage.manager, "mallory")
    with without_the_policy(stage):
        _set_finalizers(stage, kept, [FINALIZER])
        session = create(stage.cluster, "mallory", stage.manager, session_object("alice", key))
        false = engagement_object("alice", alices_session, "plain", "app")
        engagement = create(stage.cluster, "mallory", stage.namespace, false)
        own = create(stage.cluster, "mallory", stage.manager, session_object("mallory", key))
        stage.works()  # a second passes in which the manager could accept
        now = [get(stage.cluster, *where(item)) for item in (session, engagement, own)]
    yield Gap(session, engagement, own, [item for item in now if "phase" in item.get("status", {})], kept)
    _set_finalizers(stage, kept, [])


def test_while_the_policy_does_not_work_nothing_is_accepted(gap: Gap) -> None:
    assert gap.accepted == []


def test_what_was_created_before_the_policy_worked_is_refused_for_good(stage: Stage, gap: Gap) -> None:
    for item, phase in ((gap.session, "Refused"), (gap.engagement, "Failed"), (gap.honest, "Refused")):
        status = judged(stage.cluster, item, phase)["status"]
        assert status["reason"] == "CreatedBeforePolicy"
        assert "certificate" not in status
    assert stage.apps.containers("plain") == ["app", "side"]
    stage.works()


def test_a_finalizer_from_before_the_policy_keeps_the_object_but_not_the_session(stage: Stage, gap: Gap) -> None:
    attempt = gap.kept.attempt("tunnel", hold=20.0)
    with Forward(stage.cluster, "mallory").holding(stage.manager_peer(), attempt) as stream:
        stage.cluster.kubectl("--as=mallory", "delete", *where(gap.kept.item), "--wait=false")
        (outcome,) = outcomes_of(stream)
    assert outcome["code"] == "ANSWERED"
    assert outcome["ended"] < 10, "seconds since it began"
    assert stage.cluster.kubectl("get", *where(gap.kept.item), "-o", "name")
    (after,) = stage.ways["forward"].attempts(stage.manager_peer(), [gap.kept.attempt("tunnel")])
    assert after["code"] == "PERMISSION_DENIED"
