"""The legacy `auth-provider`, as far as it goes without one."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import pytest

from tunnel.kube import auth_provider
from tunnel.kube.errors import KubeconfigError


def _oidc(**config: str) -> dict[str, Any]:
    return {"name": "oidc", "config": config}


def test_a_token_that_is_still_good() -> None:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + 3600}).encode()).decode().rstrip("=")
    token = f"e30.{claims}.x"
    assert asyncio.run(auth_provider.ask(_oidc(**{"id-token": token}))).token == token


@pytest.mark.parametrize("provider", [_oidc(**{"id-token": "nonsense"}), _oidc(), {"name": "azure"}, {"name": 5}])
def test_whatever_goes_wrong_is_a_sentence(provider: dict[str, Any]) -> None:
    with pytest.raises(KubeconfigError, match="auth-provider"):
        asyncio.run(auth_provider.ask(provider))
