"""The manager's and the agents' ports: nothing without the certificate of a live session, from wherever one comes."""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Iterable

import pytest

from integration.scenarios.access.certificates import signed_by
from integration.scenarios.access.client import Attempt, Outcome
from integration.scenarios.access.objects import RawSession
from integration.scenarios.access.stage import Stage
from integration.scenarios.access.ways import Forward, outcomes_of
from integration.scenarios.workloads import get
from manager import pki
from tpd.session.identity import new_identity
from tunnel.identity import Identity, Kind
from tunnel.testing.certificates import FakeAuthority

pytestmark = pytest.mark.cluster

HOUR = dt.timedelta(hours=1)
NO = {"UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED", "GO_AWAY"}
"""UNAVAILABLE: the handshake failed. That the port is served at all, an honest attempt beside these shows."""
TLS_ALERT = "15"
"""The first byte of a TLS record that says what was wrong (RFC 8446, 5.1)."""


@pytest.fixture(scope="module")
def strangers(stage: Stage) -> dict[str, Attempt]:
    """Streams that claim to be the session `engaged`, by what they show instead of its certificate."""
    me = Identity(Kind.SESSION, stage.engaged.uid)
    foreign = FakeAuthority().issue(me)
    own = signed_by(stage.idle.key, stage.idle.chain, me)
    never = Identity(Kind.SESSION, "00000000-0000-4000-8000-000000000000")
    return {
        "nothing": stage.engaged.attempt("tunnel", key=None, chain=None),
        "of another root": stage.engaged.attempt(
            "tunnel", key=foreign.key_pem.decode(), chain=foreign.chain_pem.decode()
        ),
        "signed by a session": stage.engaged.attempt("tunnel", key=own[0], chain=own[1]),
        "an agent's": _signed(stage, Identity(Kind.AGENT, stage.engaged.uid)),
        "the manager's": _signed(stage, Identity(Kind.MANAGER, stage.manager)),
        "expired": _signed(stage, me, age=2 * HOUR),
        "of a session that never was": _signed(stage, never),
        "of a session that has ended": stage.ended.attempt("tunnel"),
    }


def _signed(stage: Stage, identity: Identity, age: dt.timedelta = dt.timedelta(0)) -> Attempt:
    """An attempt with a certificate for one hour, signed so long ago with the manager's own root."""
    data = get(stage.cluster, "secret", "tpctl-root", "-n", stage.manager)["data"]
    root = pki.load_root(*(base64.b64decode(data[name]) for name in (pki.KEY_ENTRY, pki.CERTIFICATE_ENTRY)))
    then, key = dt.datetime.now(dt.UTC) - age, new_identity()
    chain = pki.Authority(root, then).sign(identity, key.public_key.encode(), HOUR, then).chain_pem
    return stage.engaged.attempt("tunnel", key=key.key.decode(), chain=chain.decode())


def _refused(outcomes: Iterable[Outcome], names: Iterable[str]) -> None:
    assert {name: each for name, each in zip(names, outcomes, strict=True) if each["code"] not in NO} == {}


def _closed(outcome: Outcome) -> None:
    """Whoever does not speak TLS is told so at most."""
    assert outcome["code"] == "CLOSED"
    assert outcome["received"][:2] in ("", TLS_ALERT)


def test_nothing_opens_at_an_agent_without_a_live_sessions_certificate(
    stage: Stage, strangers: dict[str, Attempt]
) -> None:
    bare = stage.idle.attempt("plain", send="GET / HTTP/1.1\r\n\r\n")
    asking = [Attempt(**{**each, "do": "environment", "engagement": stage.uid("side")}) for each in strangers.values()]
    tries = [bare, *strangers.values(), *asking, stage.engaged.attempt("tunnel")]
    for bare_outcome, *outcomes, honest in stage.everywhere(stage.agent_peer(), tries).values():
        _closed(bare_outcome)
        _refused(outcomes, [*strangers, *(f"{name}, environment" for name in strangers)])
        assert honest["code"] == "ANSWERED"


def test_nothing_opens_at_the_manager_without_a_live_sessions_certificate(
    stage: Stage, strangers: dict[str, Attempt]
) -> None:
    bare = stage.idle.attempt("plain", send="GET / HTTP/1.1\r\n\r\n")
    watching = [Attempt(**{**each, "do": "watch"}) for each in strangers.values()]
    another = stage.idle.attempt("tunnel", session=stage.engaged.uid)
    tries = [bare, *strangers.values(), *watching, another, stage.idle.attempt("tunnel")]
    for bare_outcome, *outcomes, honest in stage.everywhere(stage.manager_peer(), tries, "forward", "pod").values():
        _closed(bare_outcome)
        _refused(outcomes, [*strangers, *(f"{name}, watch" for name in strangers), "another session's"])
        assert honest["code"] == "ANSWERED"


def test_an_open_stream_ends_with_its_session(stage: Stage) -> None:
    session = RawSession.open(stage.cluster, stage.manager, "mallory")
    attempt = session.attempt("tunnel", hold=20.0)
    with Forward(stage.cluster, "mallory").holding(stage.manager_peer(), attempt) as stream:
        session.end(stage.cluster)
        (outcome,) = outcomes_of(stream)
    assert outcome["code"] == "ANSWERED"
    assert outcome["ended"] < 10, "seconds since it began"
