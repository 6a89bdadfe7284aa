"""Which pods an uninstalled manager would leave behind."""

from __future__ import annotations

import json

import pytest

from tpd.session.release import has_agent
from tunnel.agentconfig import ANNOTATION


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        ({}, False),
        ({"annotations": None}, False),
        ({"annotations": {ANNOTATION: json.dumps({"manager": {"namespace": "ops"}})}}, True),
        ({"annotations": {ANNOTATION: json.dumps({"manager": {"namespace": "ops"}})}, "deletionTimestamp": "x"}, False),
        ({"annotations": {ANNOTATION: json.dumps({"manager": {"namespace": "other"}})}}, False),
        ({"annotations": {ANNOTATION: "not JSON"}}, False),
        ({"annotations": {ANNOTATION: "[]"}}, False),
    ],
)
def test_pods_with_an_agent_of_this_manager(metadata: dict[str, object], ours: bool) -> None:
    assert has_agent({"metadata": metadata}, "ops") is ours
