"""The proxy that kubectl would take."""

from __future__ import annotations

import pytest

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.kubeconfig import Credentials
from tunnel.kube.proxy import proxy_of


def _proxy(server: str, proxy: str | None = None, **environment: str) -> str | None:
    return proxy_of(Credentials(context="c", namespace="n", server=server, proxy=proxy), environment)


def test_the_kubeconfigs_comes_before_the_environments() -> None:
    server = "https://k8s.example:6443"
    assert _proxy(server) is None
    assert _proxy(server, HTTPS_PROXY="http://env:1", HTTP_PROXY="http://other:1") == "http://env:1"
    assert _proxy(server, https_proxy="env:1") == "http://env:1"
    assert _proxy(server, "http://file:1", HTTPS_PROXY="http://env:1", NO_PROXY="*") == "http://file:1"
    assert _proxy("http://k8s.example", HTTPS_PROXY="http://env:1") is None


@pytest.mark.parametrize(
    ("server", "no_proxy", "direct"),
    [
        ("https://k8s.corp.example", "corp.example", True),
        ("https://k8s.corp.example", ".corp.example", True),
        ("https://k8s.corp.example", "*.corp.example", True),
        ("https://corp.example", "x.example, corp.example", True),
        ("https://notcorp.example", "corp.example", False),
        ("https://k8s.corp.example:6443", "corp.example:6443", True),
        ("https://corp.example:6443", "corp.example:6443", True),
        ("https://corp.example:6443", "corp.example:443", False),
        ("https://corp.example", "corp.example:443", True),
        ("https://corp.example", "corp.example:80", False),
        ("https://10.1.2.3:6443", "10.0.0.0/8", True),
        ("https://10.1.2.3:6443", "10.1.2.3", True),
        ("https://11.1.2.3:6443", "10.0.0.0/8,192.168.1.1", False),
        ("https://[fd00::1]:6443", "fd00::/8", True),
        ("https://k8s.example", "*", True),
        ("https://k8s.example", "", False),
        ("https://127.0.0.1:6443", "", True),
        ("https://localhost:6443", "", True),
    ],
)
def test_no_proxy(server: str, no_proxy: str, direct: bool) -> None:
    assert (_proxy(server, HTTPS_PROXY="http://env:1", NO_PROXY=no_proxy) is None) is direct


def test_a_proxy_that_cannot_be_used_is_named() -> None:
    with pytest.raises(KubeconfigError, match="proxy-url is socks5://p:1"):
        _proxy("https://k8s.example", "socks5://me:secret@p:1")
    with pytest.raises(KubeconfigError, match="proxy-url is not a URL"):
        _proxy("https://k8s.example", "http://[::1")
    with pytest.raises(KubeconfigError, match="HTTPS_PROXY is not a URL"):
        _proxy("https://k8s.example", HTTPS_PROXY="http://me:secret@p:99999")
    with pytest.raises(KubeconfigError, match="HTTPS_PROXY is socks5://p:1"):
        _proxy("https://k8s.example", HTTPS_PROXY="socks5://p:1")
