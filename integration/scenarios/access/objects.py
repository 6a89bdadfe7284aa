"""Sessions and engagements made by hand: the objects through kubectl under anybody's name, the keys our own."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, cast

from integration.cluster.cluster import Cluster
from integration.scenarios.access.client import Attempt
from integration.scenarios.user import eventually
from integration.scenarios.workloads import get
from tpd.session.identity import new_identity

Object = dict[str, Any]


def session_object(user: str, public_key: str, **metadata: Any) -> Object:
    """A Session as a worker makes it."""
    client = {"host": "raw", "machineId": "raw", "version": "0.1.0"}
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Session",
        "metadata": {"name": f"raw-{secrets.token_hex(4)}", **metadata},
        "spec": {"user": user, "client": client, "publicKey": public_key, "namespace": "default", "name": "raw"},
    }


def engagement_object(
    user: str, session: Object, workload: str, container: str, port: int | None = None, **metadata: Any
) -> Object:
    """An Engagement as a worker makes it; `session` is a Session as the API server has it."""
    known = session["metadata"]
    return {
        "apiVersion": "tpctl.io/v1alpha1",
        "kind": "Engagement",
        "metadata": {"name": f"raw-{secrets.token_hex(4)}", **metadata},
        "spec": {
            "user": user,
            "session": {key: known[key] for key in ("namespace", "name", "uid")},
            "mode": "Replace",
            "workload": {"kind": "Deployment", "name": workload},
            "container": container,
            "ports": [{"containerPort": port, "protocol": "TCP"}] if port else [],
        },
    }


def create(cluster: Cluster, user: str, namespace: str, body: Object) -> Object:
    """Create the object as this user. `ClusterError` says why the API server does not."""
    words = (f"--as={user}", f"--namespace={namespace}", "create", "-f", "-", "-o", "json")
    created: Object = json.loads(cluster.kubectl(*words, stdin=json.dumps(body)))
    return created


def where(item: Object) -> tuple[str, ...]:
    """The words by which kubectl finds the object."""
    metadata = item["metadata"]
    return (f"--namespace={metadata['namespace']}", f"{item['kind'].lower()}.tpctl.io", metadata["name"])


def judged(cluster: Cluster, item: Object, *phases: str) -> Object:
    """The object once its phase is one of these."""

    def look() -> Object | None:
        found: Object = get(cluster, *where(item))
        return found if found.get("status", {}).get("phase") in phases else None

    found: Object = eventually(f"{item['kind']} {item['metadata']['name']} to be {' or '.join(phases)}", look)
    return found


@dataclass(frozen=True)
class RawSession:
    """A live session and all that proves it."""

    item: Object
    key: str
    chain: str
    root: str

    @classmethod
    def open(cls, cluster: Cluster, manager: str, user: str) -> RawSession:
        """As a worker does it, without one."""
        identity = new_identity()
        created = create(cluster, user, manager, session_object(user, identity.public_key))
        item = judged(cluster, created, "Active")
        return cls(item, identity.key.decode(), item["status"]["certificate"], item["status"]["root"])

    @property
    def uid(self) -> str:
        """Its identity."""
        return str(self.item["metadata"]["uid"])

    def attempt(self, do: str, **more: Any) -> Attempt:
        """Something to try with its certificate; `more` overrides."""
        proof = {"key": self.key, "chain": self.chain, "root": self.root, "session": self.uid}
        return cast(Attempt, {"do": do, **proof, **more})

    def end(self, cluster: Cluster) -> None:
        """Delete it."""
        cluster.kubectl("delete", "--ignore-not-found", *where(self.item))
