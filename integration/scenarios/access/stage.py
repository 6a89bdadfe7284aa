"""The stage of these stories: alice has replaced a container; mallory may everything that alice may, and wants hers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from integration.cluster.cluster import Cluster
from integration.cluster.laptop import Laptop
from integration.scenarios.access.client import Attempt, Outcome
from integration.scenarios.access.objects import Object, RawSession, create, engagement_object, judged
from integration.scenarios.access.ways import Forward, Peer, Pod, Tunnel, Way
from integration.scenarios.apps import LAPTOP, Apps, serving
from integration.scenarios.user import User, first_pod
from integration.scenarios.workloads import get

SECRET = "what only alice may read"
SIDE_PORT = 7100
WORKLOADS = ("victim", "other", "plain")


@dataclass(frozen=True)
class Stage:
    """`victim`: alice's laptop has replaced its container `app`, and a raw session of mallory's its container `side`,
    so that one agent serves both. `other`: alice has replaced its `app` too. `plain`: untouched. `stranger`: a pod
    that can run the client."""

    cluster: Cluster
    manager: str
    apps: Apps
    alice: User
    mallory: User
    idle: RawSession
    """A live session of mallory's that engages nothing."""
    engaged: RawSession
    """A live session of mallory's that engages `side` of the victim."""
    ended: RawSession
    """A session of mallory's that is deleted; its certificate is valid for hours."""
    engagements: dict[str, Object]
    """By what they engage: `app` (alice's) and `side` (mallory's) of the victim, `other` (alice's)."""
    ways: dict[str, Way]
    """By name: forward, tunnel, pod."""

    @property
    def namespace(self) -> str:
        """Of the workloads."""
        return self.apps.namespace

    def uid(self, engagement: str) -> str:
        """Of one of `engagements`."""
        return str(self.engagements[engagement]["metadata"]["uid"])

    def alices_session(self) -> Object:
        """The session of alice's laptop."""
        session = self.engagements["app"]["spec"]["session"]
        found: Object = get(self.cluster, "session.tpctl.io", session["name"], "-n", session["namespace"])
        return found

    def manager_pod(self) -> Any:
        """The manager's pod now."""
        return first_pod(get(self.cluster, "pods", "-n", self.manager, "-l", "app.kubernetes.io/name=traffic-manager"))

    def manager_peer(self, port: int = 8443) -> Peer:
        """A port of the manager."""
        pod = self.manager_pod()
        name, address = pod["metadata"]["name"], pod["status"]["podIP"]
        return Peer(self.manager, name, address, port, f"{self.manager}.manager.tpctl")

    def agent_peer(self) -> Peer:
        """The port of the victim's agent."""
        pod = self.apps.pod("victim")
        metadata, address = pod["metadata"], pod["status"]["podIP"]
        return Peer(self.namespace, metadata["name"], address, 9900, f"{metadata['uid']}.agent.tpctl")

    def everywhere(self, peer: Peer, attempts: Sequence[Attempt], *ways: str) -> dict[str, list[Outcome]]:
        """The outcomes by way, of all ways or of these."""
        with ThreadPoolExecutor(len(self.ways)) as pool:
            going = {way: pool.submit(self.ways[way].attempts, peer, attempts) for way in ways or self.ways}
        return {way: future.result() for way, future in going.items()}

    def works(self) -> None:
        """Everything still does what it is for."""
        assert self.apps.get("http://victim:8080/").answer == LAPTOP
        assert "the original" in self.alice.curl("http://plain:8080/", timeout=10)
        # As root, who sees everybody's: a user who floods the daemon is himself refused for a while.
        assert "connected" in User(self.alice.laptop, "root").tpctl("status")


def build(cluster: Cluster, manager: str, stack: ExitStack) -> Stage:
    """Make all of it; `stack` takes it away."""
    namespace = f"raw-{secrets.token_hex(3)}"
    cluster.kubectl("create", "namespace", namespace)
    stack.callback(cluster.kubectl, "delete", "namespace", namespace, "--wait=false")
    apps = Apps(cluster, namespace)
    users = ("--user=alice", "--user=mallory")
    apps.kubectl("create", "rolebinding", "edit", "--clusterrole=edit", *users)
    cluster.kubectl("-n", manager, "create", "rolebinding", namespace, "--role=traffic-manager-connect", *users)
    stack.callback(cluster.kubectl, "-n", manager, "delete", "rolebinding", namespace)

    def person(name: str) -> User:
        laptop = Laptop.create(cluster, f"{name}-{namespace}", user=name, groups=())
        stack.callback(laptop.delete)
        return User(laptop)

    def session() -> RawSession:
        made = RawSession.open(cluster, manager, "mallory")
        stack.callback(made.end, cluster)
        return made

    alice, mallory = person("alice"), person("mallory")
    with ThreadPoolExecutor() as pool:
        ready = [pool.submit(_deploy, apps), *(pool.submit(each.connect, namespace) for each in (alice, mallory))]
        idle, engaged, ended = session(), session(), session()
        for each in ready:
            each.result()
    stack.callback(alice.tpctl, "quit")
    stack.callback(mallory.tpctl, "quit")
    stack.enter_context(serving(alice))
    ended.end(cluster)
    side = engagement_object("mallory", engaged.item, "victim", "side", SIDE_PORT)
    side = judged(cluster, create(cluster, "mallory", namespace, side), "Accepted", "Active")
    with ThreadPoolExecutor() as pool:
        words = (("victim", "-c", "app"), ("other", "-c", "app", "--port", "8081:8080"))
        list(pool.map(lambda each: alice.tpctl("replace", *each), words))
    judged(cluster, side, "Active")
    apps.answers("http://victim:8080/", LAPTOP)
    return Stage(
        cluster=cluster,
        manager=manager,
        apps=apps,
        alice=alice,
        mallory=mallory,
        idle=idle,
        engaged=engaged,
        ended=ended,
        engagements=_engagements(apps),
        ways={
            "forward": Forward(cluster, "mallory"),
            "tunnel": Tunnel(mallory.laptop),
            "pod": Pod(cluster, namespace, "stranger"),
        },
    )


def _deploy(apps: Apps) -> None:
    ports = [{"name": "http", "containerPort": 8080}]
    secret = [{"name": "SECRET", "value": SECRET}]
    with ThreadPoolExecutor() as pool:
        deploying = [pool.submit(apps.deploy, name, ports=ports, env=secret) for name in WORKLOADS]
        apps.apply(_stranger(apps.cluster.image("manager")))
        for each in deploying:
            each.result()
    apps.kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=30s")


def _stranger(image: str) -> Object:
    command = ["python3", "-I", "-c", "import signal; signal.pause()"]
    container = {"name": "stranger", "image": image, "imagePullPolicy": "IfNotPresent", "command": command}
    spec = {"terminationGracePeriodSeconds": 0, "automountServiceAccountToken": False, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger"}, "spec": spec}


def _engagements(apps: Apps) -> dict[str, Object]:
    found: dict[str, Object] = {}
    for item in get(apps.cluster, "engagements.tpctl.io", "-n", apps.namespace)["items"]:
        workload, container = item["spec"]["workload"]["name"], item["spec"]["container"]
        found[container if workload == "victim" else workload] = item
    return found
