"""What can go wrong between us and the API server, as the decisions a caller makes about it.

The texts are fit for users; unknown payloads are never put into them beyond the server's own message, truncated.
"""

from __future__ import annotations

import json
from typing import Any

_LONGEST_MESSAGE = 1000


class KubeError(Exception):
    """Any failure of a request. `retryable` says whether the same request may succeed later unchanged."""

    retryable = False


class Unreachable(KubeError):
    """No answer: name resolution, connection, TLS or time-out."""

    retryable = True


class KubeconfigError(KubeError):
    """The kubeconfig is missing, malformed, or lacks what was asked for."""


class ApiError(KubeError):
    """The API server answered with a Status (Kubernetes API: meta/v1 Status).

    status: HTTP status code; reason: machine-readable (`AlreadyExists`, `Forbidden`, …); details: Status.details.
    """

    def __init__(self, status: int, reason: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.details = details or {}
        self.retryable = status in (429, 500, 502, 503, 504)

    @property
    def not_found(self) -> bool:
        """404: no such object, or no such kind of resource."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """409: AlreadyExists, or another writer was faster (resourceVersion, uid precondition)."""
        return self.status == 409

    @property
    def forbidden(self) -> bool:
        """403: RBAC or an admission policy."""
        return self.status == 403

    @property
    def gone(self) -> bool:
        """410: the watch's resourceVersion is too old; list again."""
        return self.status == 410


def from_response(status: int, body: bytes) -> ApiError:
    """Make an `ApiError` from an HTTP answer that is not 2xx; the body need not be a Status."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if isinstance(document, dict) and document.get("kind") == "Status":
        return from_status(document, status)
    text = body[:_LONGEST_MESSAGE].decode(errors="replace").strip()
    return ApiError(status, "Unknown", text or f"the API server answered {status}")


def from_status(document: dict[str, Any], status: int = 500) -> ApiError:
    """Make an `ApiError` from a Status object, also one that came inside a watch."""
    return ApiError(
        int(document.get("code") or status),
        str(document.get("reason") or "Unknown"),
        str(document.get("message") or "")[:_LONGEST_MESSAGE],
        document.get("details"),
    )
