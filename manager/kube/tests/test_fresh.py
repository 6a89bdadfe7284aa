"""What counts of a collection: the newest of each object, and nothing that is deleted."""

from __future__ import annotations

from typing import Any

from manager.kube.fresh import Fresh
from tunnel.kube.api import Api
from tunnel.kube.informer import Informer, key_of
from tunnel.kube.kubeconfig import Credentials


def item(version: int, **metadata: Any) -> dict[str, Any]:
    known = {"namespace": "n", "name": "a", "uid": "1", "resourceVersion": str(version)}
    return {"metadata": {**known, **metadata}}


def seen(*items: dict[str, Any]) -> Fresh:
    """After the watch has shown these."""
    informer = Informer(Api(Credentials("test", "default", "http://127.0.0.1:1")), "/none")
    informer.items.update({key_of(each): each for each in items})
    return Fresh(informer)


def test_our_own_newer_write_counts_until_the_watch_has_shown_it() -> None:
    fresh = seen(item(1))
    fresh.put(item(2))
    assert fresh.items() == [item(2)]
    assert seen(item(3)).items() == [item(3)]


def test_what_is_deleted_is_gone_also_while_a_finalizer_keeps_it() -> None:
    deleted = item(2, deletionTimestamp="2030-01-01T00:00:00Z", finalizers=["example.org/keep"])
    assert seen(deleted).items() == []
    fresh = seen(item(1))
    fresh.put(deleted)
    assert fresh.items() == []
