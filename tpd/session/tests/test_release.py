"""Which pods an uninstalled manager would leave behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from tpd.session.kube import paths
from tpd.session.release import has_agent, release
from tpd.session.tests.cluster import MANAGER, Object, cluster
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


def pod(name: str) -> Object:
    config = json.dumps({"manager": {"namespace": MANAGER}})
    return {"metadata": {"name": name, "namespace": "demo", "uid": f"uid-{name}", "annotations": {ANNOTATION: config}}}


def test_the_whole_cluster_is_listed_only_to_begin_and_to_be_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tpd.session.release._LOOK_EVERY", 0.02)

    async def run() -> None:
        async with asyncio.timeout(20), cluster() as away, away.api() as api:
            deployment = paths.workloads("Deployment", MANAGER, paths.MANAGER_NAME)
            away.objects[deployment] = {"metadata": {"name": "m"}, "status": {"availableReplicas": 1}}
            away.objects[paths.pods("demo", "a")] = pod("a")
            away.objects[paths.pods("demo", "b")] = pod("b")
            releasing = asyncio.create_task(release(api, MANAGER, 10.0))
            looks = [f"GET {paths.pods('demo', name)}" for name in "ab"]
            await until(lambda: away.log.count(looks[0]) >= 3)
            away.objects[paths.pods("demo", "a")] = {"metadata": {"name": "a", "uid": "another"}}
            seen = away.log.count(looks[0])
            await until(lambda: away.log.count(looks[1]) >= seen + 3)
            assert away.log.count(looks[0]) <= seen + 2, "that is the original, and asked for no more"
            del away.objects[paths.pods("demo", "b")]
            await releasing
            assert away.log.count(f"GET {paths.ALL_PODS}") == 2

    asyncio.run(run())


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise TimeoutError
