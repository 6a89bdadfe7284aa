"""The agents' port: a certificate only for the pod that a token proves, and grants for nobody else's pod."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from integration.scenarios.access.client import Attempt
from integration.scenarios.access.stage import Stage
from tunnel.identity import Kind, identify

pytestmark = pytest.mark.cluster

AUDIENCE, AGENTS = "traffic-manager", 8444


def token(stage: Stage, audience: str | None, *, bound: bool) -> str:
    """Of the namespace's default ServiceAccount; `bound`: to the pod `stranger`, as the kubelet would mount it."""
    words = ["create", "token", "default", "--duration=10m"]
    words += [f"--audience={audience}"] if audience else []
    words += ["--bound-object-kind=Pod", "--bound-object-name=stranger"] if bound else []
    return stage.apps.kubectl(*words).strip()


def asking(stage: Stage, do: str, proof: str | None, **more: Any) -> Attempt:
    """Without any client certificate, as agents come."""
    return stage.idle.attempt(do, key=None, chain=None, token=proof, **more)


def test_an_agents_certificate_needs_a_token_for_the_manager_and_of_a_pod(stage: Stage) -> None:
    useless = {
        "none": None,
        "no token": "nonsense",
        "looks like one": "e30.e30.e30",
        "for the API server": token(stage, None, bound=True),
        "for somebody else": token(stage, "vault", bound=True),
        "of no pod": token(stage, AUDIENCE, bound=False),
    }
    report = {"pod_uid": stage.apps.pod("victim")["metadata"]["uid"], "port": 9900}
    tries = [asking(stage, "certify", proof) for proof in useless.values()]
    tries += [asking(stage, "attend", proof, report=report) for proof in useless.values()]
    tries.append(stage.engaged.attempt("certify"))  # nor does a session's certificate make an agent
    outcomes = stage.ways["pod"].attempts(stage.manager_peer(AGENTS), tries)
    assert [outcome for outcome in outcomes if outcome["code"] != "UNAUTHENTICATED"] == []


def test_a_pods_token_is_good_for_that_pod_only(stage: Stage) -> None:
    own = token(stage, AUDIENCE, bound=True)
    me = stage.apps.kubectl("get", "pod", "stranger", "-o", "jsonpath={.metadata.uid}")
    victim = stage.apps.pod("victim")["metadata"]
    another = {"pod_uid": victim["uid"], "pod_name": victim["name"], "namespace": stage.namespace, "port": 9900}
    tries = [
        asking(stage, "certify", own),
        asking(stage, "attend", own, report=another),
        asking(stage, "attend", own, report={"pod_uid": me, "port": 0}),
        asking(stage, "attend", own, report={**another, "pod_uid": me}),
    ]
    certified, pretending, portless, attending = stage.ways["pod"].attempts(stage.manager_peer(AGENTS), tries)
    assert certified["code"] == "ANSWERED"
    assert identify(certified["chain"].encode(), Kind.AGENT).identity.id == me
    assert pretending["code"] == "PERMISSION_DENIED"
    assert portless["code"] == "PERMISSION_DENIED"
    assert attending["code"] == "DEADLINE_EXCEEDED" or attending["grants"] == [], "it attends, and is granted nothing"

    # What it got opens nothing: agents serve, they do not call.
    shown = stage.engaged.attempt("tunnel", key=certified["key"], chain=certified["chain"])
    with ThreadPoolExecutor() as pool:
        peers = (stage.manager_peer(), stage.agent_peer())
        for (outcome,) in pool.map(lambda peer: stage.ways["pod"].attempts(peer, [shown]), peers):
            assert outcome["code"] in {"UNAVAILABLE", "UNAUTHENTICATED"}
