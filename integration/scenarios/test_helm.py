"""The traffic-manager comes and goes by tpctl, and leaves nobody's container replaced."""

from __future__ import annotations

import re

import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.apps import Apps
from integration.scenarios.conftest import UserFactory, install, settings
from integration.scenarios.user import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]


def test_uninstalling_gives_back_and_installing_tells_the_reason(
    apps: Apps, people: UserFactory, cluster: Cluster, manager: str
) -> None:
    apps.deploy("echo", ports=[{"name": "http", "containerPort": 8080}])
    user = people()
    user.connect(apps.namespace)
    user.tpctl("replace", "echo", "-c", "app")
    assert apps.containers("echo") == ["traffic-agent", "side"]
    try:
        user.tpctl("helm", "uninstall")
        assert apps.containers("echo") == ["app", "side"]
        assert "no traffic-manager is installed there" in user.refused("helm", "uninstall")

        newcomer = people()
        newcomer.start_daemon()
        said = newcomer.refused("connect", "-n", apps.namespace)
        assert said == "no traffic-manager is installed in this cluster; install it with: tpctl helm install"
        said = newcomer.refused("connect", "-n", apps.namespace, "--manager-namespace", "default")
        assert said.endswith("install it there with: tpctl helm install --namespace default")
        assert newcomer.json("status")["connections"] == []

        image = "--set=image.name=localhost:1/nothing"
        said = user.refused("helm", "install", *settings(cluster), image, "--timeout", "8")
        assert re.search(
            "installed, but not ready after 8 s: (ErrImagePull|ImagePullBackOff) in pod traffic-mana", said
        )
        assert "tpctl helm upgrade" in said
        user.tpctl("helm", "upgrade", *settings(cluster))
        state = "the laptop's own return"
        eventually(state, lambda: user.json("status")["connections"][0]["state"] == "connected", timeout=30)
    finally:
        install(cluster)
    user.tpctl("quit")
