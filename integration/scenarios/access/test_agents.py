"""What a session with a good certificate gets from an agent: what its own engagement grants, and nothing else."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from integration.scenarios.access.stage import SECRET, Stage
from integration.scenarios.apps import LAPTOP

pytestmark = pytest.mark.cluster

QUESTION = "abcd01000001000000000000056c6f63616c0000010001"
"""A DNS message that asks for the address of `local`."""


def test_a_session_without_the_engagement_gets_nothing_whatever_way_it_comes(stage: Stage) -> None:
    alices, mallorys = stage.uid("app"), stage.uid("side")
    tries = [
        stage.idle.attempt("tunnel"),
        stage.idle.attempt("environment", engagement=alices),
        stage.idle.attempt("environment", engagement=mallorys),
        # With an engagement on the container beside it, in the same pod.
        stage.engaged.attempt("environment", engagement=alices),
        stage.engaged.attempt("environment", engagement=stage.uid("other")),
        stage.engaged.attempt("environment", engagement=""),
        stage.engaged.attempt("tunnel", session=stage.alices_session()["metadata"]["uid"]),
        stage.engaged.attempt("environment", engagement=mallorys),
    ]
    for way, (*outcomes, pretending, own) in stage.everywhere(stage.agent_peer(), tries).items():
        assert [outcome["code"] for outcome in outcomes] == ["PERMISSION_DENIED"] * 6, way
        assert pretending["code"] == "GO_AWAY", way
        assert own["code"] == "ANSWERED", way
        assert SECRET not in own["variables"].values(), way


def test_an_agent_opens_nothing_for_a_session_and_sends_it_no_others_flows(stage: Stage) -> None:
    peer = stage.agent_peer()
    attempt = stage.engaged.attempt(
        "link",
        dials=[
            *(("TCP", address, 8080) for address in ("127.0.0.1", "::1", peer.address, "169.254.169.254")),
            *(("TCP", peer.address, 9900), ("UDP", "10.96.0.10", 53)),
        ],
        inbound=[(stage.uid("app"), 8080), (stage.uid("side"), 8080)],
        query=QUESTION,
        hold=1.5,
    )
    with ThreadPoolExecutor(1) as pool:
        trying = pool.submit(stage.ways["pod"].attempts, peer, [attempt])
        answers = []
        while not trying.done():
            answers.append(stage.apps.get("http://victim:8080/").answer)
    (outcome,) = trying.result()
    assert {each["code"] for each in outcome["opens"]} == {"PROHIBITED"}
    assert outcome["answer"] == ""
    assert outcome["opened"] == []
    assert set(answers) == {LAPTOP}, "alice's calls went on all the while"
