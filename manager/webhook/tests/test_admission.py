import base64
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from manager.state.injection import Wish
from manager.webhook.admission import answer, difference, let_in
from tunnel.agentconfig import ManagerAddress, Workload

POD: dict[str, Any] = {
    "metadata": {"name": "echo-1", "annotations": {"a/b": "c"}},
    "spec": {"containers": [{"name": "app", "image": "x"}, {"name": "side", "image": "y"}]},
}


def _wish(*containers: str) -> Wish:
    return Wish(
        image="agent",
        pull_policy="Never",
        root_pem="root",
        manager=ManagerAddress("m", "m", 8444),
        workload=Workload("Deployment", "echo"),
        containers=frozenset(containers),
    )


def _apply(document: Any, patch: list[dict[str, Any]]) -> Any:
    """RFC 6902, as far as it is used here: objects only."""
    document = json.loads(json.dumps(document))
    for operation in patch:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        place = document
        for part in path:
            place = place[part]
        if operation["op"] == "remove":
            del place[last]
        else:
            assert (last in place) == (operation["op"] == "replace")
            place[last] = operation["value"]
    return document


def test_the_pod_gets_the_agent() -> None:
    response = answer({"uid": "u", "object": POD}, _wish("app"))["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u", True, "JSONPatch")
    pod = _apply(POD, json.loads(base64.b64decode(response["patch"])))
    assert [container["name"] for container in pod["spec"]["containers"]] == ["traffic-agent", "side"]


def test_without_a_wish_nothing_changes() -> None:
    assert answer({"uid": "u", "object": POD}, None)["response"] == {"uid": "u", "allowed": True}


def test_a_pod_that_cannot_have_it_is_let_in_with_a_warning() -> None:
    response = answer({"uid": "u", "object": POD}, _wish("nope"))["response"]
    assert response["allowed"]
    assert "patch" not in response
    assert "nope" in response["warnings"][0]


def test_a_warning_is_short_enough_for_the_api_server() -> None:
    response = let_in({"uid": "u"}, "x" * 1000)["response"]
    assert len(response["warnings"][0]) == 256


_values: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda inner: st.dictionaries(st.text("ab~/", max_size=3), inner, max_size=3),
    max_leaves=10,
)
_objects = st.dictionaries(st.text("ab~/", max_size=3), _values, max_size=3)


@given(_objects, _objects)
def test_a_patch_leads_from_one_to_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert _apply(before, difference(before, after)) == after
