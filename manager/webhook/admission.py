"""What the webhook answers, as a pure function (admission.k8s.io/v1 AdmissionReview)."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from manager.state.injection import NotInjectable, Wish, inject

Object = Mapping[str, Any]


def answer(request: Object, wish: Wish | None) -> dict[str, Any]:
    """The AdmissionReview for a request about a pod; without a wish the pod stays as it is.

    A pod that cannot have the agent is let in without, with a warning: the manager sees what it lacks.
    """
    response: dict[str, Any] = {"uid": str(request.get("uid", "")), "allowed": True}
    if wish is not None:
        pod = request.get("object") or {}
        try:
            patch = difference(pod, inject(pod, wish))
        except NotInjectable as error:
            response["warnings"] = [f"tpctl: no traffic-agent: {error}"[:256]]
        else:
            if patch:
                response["patchType"] = "JSONPatch"
                response["patch"] = base64.b64encode(json.dumps(patch).encode()).decode()
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}


def let_in(request: Object, warning: str) -> dict[str, Any]:
    """Let the pod in as it is, and say why."""
    review = answer(request, None)
    review["response"]["warnings"] = [f"tpctl: {warning}"[:256]]
    return review


def difference(before: Object, after: Object, path: str = "") -> list[dict[str, Any]]:
    """A JSON patch (RFC 6902) from one object to another; lists are replaced whole."""
    patch: list[dict[str, Any]] = []
    for key in before.keys() | after.keys():
        place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
        if key not in after:
            patch.append({"op": "remove", "path": place})
        elif key not in before:
            patch.append({"op": "add", "path": place, "value": after[key]})
        elif isinstance(before[key], dict) and isinstance(after[key], dict):
            patch += difference(before[key], after[key], place)
        elif before[key] != after[key]:
            patch.append({"op": "replace", "path": place, "value": after[key]})
    return sorted(patch, key=lambda operation: str(operation["path"])) if not path else patch
