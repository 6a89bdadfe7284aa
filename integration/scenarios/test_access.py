"""Raw access: what nobody gets by going around tpctl."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import grpc
import pytest

from integration.cluster.cluster import Cluster
from integration.scenarios.apps import Apps
from integration.scenarios.raw import (
    TPCTL,
    Party,
    api_as,
    certify,
    connected_party,
    engagement_object,
    environment,
    forwarded,
    key_pair,
    lets_in,
    linked,
    opened,
    session_object,
    settled,
    watch_cluster,
)
from tunnel.endpoint import Refusal
from tunnel.identity import Identity, Kind
from tunnel.kube.api import Api
from tunnel.kube.errors import ApiError
from tunnel.testing.certificates import FakeAuthority

pytestmark = pytest.mark.cluster

REFUSED = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAVAILABLE}
POLICY = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"


@pytest.fixture
def rights(apps: Apps, manager: str) -> Iterator[None]:
    """alice and bob may connect, and edit the test's namespace; carol may nothing."""
    name = f"connect-{apps.namespace}"
    both = ("--user=alice", "--user=bob")
    apps.kubectl("create", "rolebinding", "edit", "--clusterrole=edit", *both)
    words = ("create", "rolebinding", name, "--role=traffic-manager-connect", *both)
    apps.cluster.kubectl(f"--namespace={manager}", *words)
    yield
    apps.cluster.kubectl(f"--namespace={manager}", "delete", "rolebinding", name)


async def _forbidden(request: Awaitable[object], *words: str) -> None:
    with pytest.raises(ApiError) as refused:
        await request
    assert refused.value.status in (403, 422), refused.value
    for word in words:
        assert word in refused.value.message


def _pod_of(cluster: Cluster, namespace: str, selector: str) -> str:
    names = cluster.kubectl(f"--namespace={namespace}", "get", "pods", "-o", "name", "-l", selector).split()
    return names[0].removeprefix("pod/")


MANAGER_PODS = "app.kubernetes.io/name=traffic-manager"


@pytest.mark.usefixtures("rights")
def test_a_forged_object_is_refused_by_the_api_server(
    cluster: Cluster, manager: str, namespace: str, tmp_path: Path
) -> None:
    sessions = f"{TPCTL}/namespaces/{manager}/sessions"
    engagements = f"{TPCTL}/namespaces/{namespace}/engagements"

    async def story() -> None:
        async with api_as(cluster, "alice", tmp_path) as alice, api_as(cluster, "bob", tmp_path) as bob:
            async with api_as(cluster, "carol", tmp_path) as carol, api_as(cluster, "admin", tmp_path) as admin:
                await _forbidden(carol.create(sessions, session_object("carol")), "carol", "create", "sessions")
                await _forbidden(alice.create(sessions, session_object("bob")), "bob", "alice")
                await _forbidden(admin.create(sessions, session_object("bob")), "bob", "admin")
            await _forbidden(alice.create(sessions, session_object("alice", finalizers=["x/y"])), "finalizers")
            owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x"}
            await _forbidden(alice.create(sessions, session_object("alice", ownerReferences=[owner])), "owner")

            party = await connected_party(alice, "alice", manager)
            path = f"{sessions}/{party.name}"
            session = await alice.get(path)
            renewed = {"metadata": {"annotations": {"tpctl.io/renewed": "now"}}}
            await alice.patch(path, renewed)
            await _forbidden(bob.patch(path, renewed), "alice", "bob")
            await _forbidden(bob.delete(path), "alice", "manage")
            await _forbidden(alice.patch(path, {"spec": {"namespace": "kube-system"}}), "immutable")
            await _forbidden(alice.patch(path, {"metadata": {"finalizers": ["x/y"]}}), "finalizers")
            await _forbidden(alice.patch(f"{path}/status", {"status": {"phase": "Active"}}), "sessions/status")

            await _forbidden(bob.create(engagements, engagement_object("alice", session, "echo", "app")), "alice")
            # With a session that is not one's own: let in by the API server, refused by the manager.
            created = await bob.create(engagements, engagement_object("bob", session, "echo", "app"))
            mine = f"{engagements}/{created['metadata']['name']}"
            status = (await settled(bob, mine, {"Failed", "Accepted"}))["status"]
            assert (status["phase"], status["reason"]) == ("Failed", "NotYourSession")
            await _forbidden(bob.patch(mine, {"spec": {"container": "other"}}), "immutable")
            await _forbidden(bob.patch(f"{mine}/status", {"status": {"phase": "Active"}}), "engagements/status")
            await _forbidden(alice.delete(mine), "bob")
            await alice.delete(path)

    asyncio.run(story())


def test_what_was_created_before_the_policy_worked_is_not_accepted(
    cluster: Cluster, manager: str, tmp_path: Path
) -> None:
    sessions = f"{TPCTL}/namespaces/{manager}/sessions"
    name = f"traffic-manager-{manager}-identity"

    async def forge(admin: Api) -> str:
        """Create a session under a false name as soon as the API server lets it in."""
        _, public = key_pair()
        async with asyncio.timeout(10):
            while True:
                try:
                    return str((await admin.create(sessions, session_object("victim", public)))["metadata"]["name"])
                except ApiError as error:
                    if not error.forbidden:
                        raise
                    await asyncio.sleep(0.1)

    async def story() -> None:
        async with api_as(cluster, "admin", tmp_path) as admin:
            policy = await admin.get(f"{POLICY}/{name}")
            for field in ("resourceVersion", "uid", "creationTimestamp", "generation", "managedFields"):
                del policy["metadata"][field]
            policy.pop("status", None)
            await admin.delete(f"{POLICY}/{name}")
            try:
                path = f"{sessions}/{await forge(admin)}"
                await asyncio.sleep(1)
                assert "phase" not in (await admin.get(path)).get("status", {})
            finally:
                await admin.create(POLICY, policy)
            status = (await settled(admin, path, {"Active", "Refused"}))["status"]
            assert (status["phase"], status["reason"]) == ("Refused", "CreatedBeforePolicy")
            assert "certificate" not in status
            await admin.delete(path)
            # What is created from now on is under honest names again, once the policy has certainly settled.
            await asyncio.sleep(4)
            party = await connected_party(admin, "admin", manager)
            await admin.delete(f"{sessions}/{party.name}")

    asyncio.run(story())


def test_the_managers_ports_open_for_live_sessions_and_agents_only(
    cluster: Cluster, manager: str, namespace: str, tmp_path: Path
) -> None:
    def token(*options: str) -> str:
        return cluster.kubectl(f"--namespace={namespace}", "create", "token", "default", *options).strip()

    async def story() -> None:
        pod = _pod_of(cluster, manager, MANAGER_PODS)
        async with (
            api_as(cluster, "admin", tmp_path) as admin,
            forwarded(cluster, manager, pod, 8443) as sessions,
            forwarded(cluster, manager, pod, 8444) as agents,
        ):
            party = await connected_party(admin, "admin", manager)
            forged = FakeAuthority().issue(Identity(Kind.SESSION, party.session))
            nobody = Party(party.root)
            impostor = Party(party.root, forged.key_pem, forged.chain_pem, party.session)
            server = Identity(Kind.MANAGER, manager)
            for intruder in (nobody, impostor):
                assert await watch_cluster(intruder, sessions, manager) in REFUSED
                assert not await lets_in(intruder, sessions, server)
            assert await watch_cluster(party, sessions, manager) is grpc.StatusCode.OK
            assert await lets_in(party, sessions, server)
            # A session's certificate is worth nothing where agents are expected.
            assert await certify(party.root, agents, manager, None) is grpc.StatusCode.UNAUTHENTICATED
            for each in ("nonsense", token(), token("--audience=traffic-manager")):
                assert await certify(party.root, agents, manager, each) is grpc.StatusCode.UNAUTHENTICATED

            for port in (sessions, agents):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(secrets.token_bytes(4096))
                assert not await asyncio.wait_for(reader.read(1 << 16), 20)
                writer.close()
            assert await watch_cluster(party, sessions, manager) is grpc.StatusCode.OK

            await admin.delete(f"{TPCTL}/namespaces/{manager}/sessions/{party.name}")
            await _eventually_refused(lambda: watch_cluster(party, sessions, manager))
            assert not await lets_in(party, sessions, server)

    asyncio.run(story())


async def _eventually_refused(call: Callable[[], Awaitable[grpc.StatusCode]]) -> None:
    async with asyncio.timeout(5):
        while True:
            if await call() in REFUSED:
                return
            await asyncio.sleep(0.1)


def test_the_manager_does_not_dial_itself_or_metadata_services(cluster: Cluster, manager: str, tmp_path: Path) -> None:
    async def story() -> None:
        pod = _pod_of(cluster, manager, MANAGER_PODS)
        async with api_as(cluster, "admin", tmp_path) as admin, forwarded(cluster, manager, pod, 8443) as port:
            own = (await admin.get(f"/api/v1/namespaces/{manager}/pods/{pod}"))["status"]["podIP"]
            service = await admin.get(f"/api/v1/namespaces/{manager}/services/traffic-manager")
            party = await connected_party(admin, "admin", manager)
            async with linked(party, port, Identity(Kind.MANAGER, manager)) as link:
                for address in (
                    *("127.0.0.1", "127.1.2.3", "0.0.0.0", "169.254.169.254", "::1", "fe80::1", "fd00:ec2::254"),
                    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", own, f"::ffff:{own}", service["spec"]["clusterIP"]),
                ):
                    assert await opened(link, address, 8446) is Refusal.PROHIBITED, address
                dns = await admin.get("/api/v1/namespaces/kube-system/services/kube-dns")
                assert await opened(link, dns["spec"]["clusterIP"], 53) is None
            await admin.delete(f"{TPCTL}/namespaces/{manager}/sessions/{party.name}")

    asyncio.run(story())


@pytest.mark.usefixtures("rights")
def test_an_agent_gives_nothing_to_a_session_without_an_engagement(
    apps: Apps, cluster: Cluster, manager: str, namespace: str, tmp_path: Path
) -> None:
    apps.deploy("echo", ports=[{"name": "http", "containerPort": 8080}])

    async def story() -> None:
        async with api_as(cluster, "alice", tmp_path) as alice, api_as(cluster, "bob", tmp_path) as bob:
            holder = await connected_party(alice, "alice", manager)
            other = await connected_party(bob, "bob", manager)
            session = await alice.get(f"{TPCTL}/namespaces/{manager}/sessions/{holder.name}")
            engagements = f"{TPCTL}/namespaces/{namespace}/engagements"
            created = await alice.create(engagements, engagement_object("alice", session, "echo", "app", 8080))
            path = f"{engagements}/{created['metadata']['name']}"
            item = await settled(alice, path, {"Active", "Failed"})
            assert item["status"]["phase"] == "Active", item["status"]
            uid = item["metadata"]["uid"]
            (pod,) = item["status"]["pods"]
            agent = Identity(Kind.AGENT, pod["uid"])
            async with forwarded(cluster, namespace, pod["name"], pod["port"]) as port:
                assert await environment(holder, port, pod["uid"], uid) is grpc.StatusCode.OK
                for intruder in (other, Party(holder.root)):
                    assert await environment(intruder, port, pod["uid"], uid) in REFUSED
                    assert not await lets_in(intruder, port, agent)
                async with linked(holder, port, agent) as link:
                    # Neither the agent's loopback nor anything else is dialled there, and no name is asked.
                    assert await opened(link, "127.0.0.1", pod["port"]) is Refusal.PROHIBITED
                    assert await opened(link, "10.96.0.1", 443) is Refusal.PROHIBITED
                # Through the manager it is the same agent, which sees no certificate at all.
                await _agent_through_the_manager(cluster, manager, other, pod["address"], pod["port"])
                await alice.delete(path)
                await _eventually_refused(lambda: environment(holder, port, pod["uid"], uid))
            for api, party in ((alice, holder), (bob, other)):
                await api.delete(f"{TPCTL}/namespaces/{manager}/sessions/{party.name}")

    asyncio.run(story())


async def _agent_through_the_manager(cluster: Cluster, manager: str, party: Party, address: str, port: int) -> None:
    """The manager dials the agent as it dials any pod: what opens there is TLS, which wants a certificate."""
    pod = _pod_of(cluster, manager, MANAGER_PODS)
    async with (
        forwarded(cluster, manager, pod, 8443) as sessions,
        linked(party, sessions, Identity(Kind.MANAGER, manager)) as link,
    ):
        assert await opened(link, address, port) is None
        assert await opened(link, address, port + 1) is Refusal.REFUSED
