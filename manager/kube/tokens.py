"""Which pod a caller's token proves (TokenReview, authentication.k8s.io/v1)."""

from __future__ import annotations

from dataclasses import dataclass

from manager.config import TOKEN_AUDIENCE
from manager.kube import paths
from tunnel.kube.api import Api

_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_PREFIX = "system:serviceaccount:"


class NotAnAgent(Exception):
    """The token does not prove a pod."""


@dataclass(frozen=True, slots=True)
class ProvenPod:
    """The pod that the API server vouches for."""

    namespace: str
    name: str
    uid: str


async def review(api: Api, token: str) -> ProvenPod:
    """Ask the API server. Raises `NotAnAgent`, KubeError."""
    answer = await api.create(
        paths.TOKEN_REVIEWS,
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
        },
    )
    status = answer.get("status") or {}
    if not status.get("authenticated") or TOKEN_AUDIENCE not in (status.get("audiences") or ()):
        raise NotAnAgent("the token is not valid for the traffic-manager")
    user = status.get("user") or {}
    name, extra = str(user.get("username", "")), user.get("extra") or {}
    if not name.startswith(_PREFIX):
        raise NotAnAgent("the token is not a ServiceAccount's")
    namespace = name.removeprefix(_PREFIX).partition(":")[0]
    pods: list[str] = list(extra.get(_POD_NAME) or [])
    uids: list[str] = list(extra.get(_POD_UID) or [])
    if len(pods) != 1 or len(uids) != 1:
        raise NotAnAgent("the token is not bound to a pod")
    return ProvenPod(namespace, str(pods[0]), str(uids[0]))
