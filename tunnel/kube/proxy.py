"""Which proxy leads to the API server: the kubeconfig's `proxy-url`, else that of the environment, as kubectl has it.

Source: Go's httpproxy package, which kubectl uses (https://pkg.go.dev/golang.org/x/net/http/httpproxy).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

from tunnel.kube.errors import KubeconfigError
from tunnel.kube.kubeconfig import Credentials

_DEFAULT_PORTS = {"https": 443, "http": 80}


def proxy_of(credentials: Credentials, environment: Mapping[str, str]) -> str | None:
    """The proxy's URL; None: there is none. Raises KubeconfigError for one that cannot be used."""
    where = urlsplit(credentials.server)
    proxy, source = credentials.proxy, "the kubeconfig's proxy-url"
    port = where.port or _DEFAULT_PORTS.get(where.scheme)
    if not proxy and not _bypassed(where.hostname or "", port, _get(environment, "no_proxy")):
        name = f"{where.scheme}_proxy"
        proxy, source = _get(environment, name), f"the environment variable {name.upper()}"
        proxy = f"http://{proxy}" if proxy and "://" not in proxy else proxy
    try:
        usable = not proxy or (urlsplit(proxy).scheme in ("http", "https") and urlsplit(proxy).port != 0)
    except ValueError:  # a port beyond 65535, half an IPv6 address
        raise KubeconfigError(f"{source} is not a URL, as in http://HOST:3128") from None
    if proxy and not usable:
        raise KubeconfigError(f"{source} is {shown(proxy)}; only proxies of http:// and https:// can be used")
    return proxy or None


def shown(proxy: str) -> str:
    """The URL without name and password."""
    parts = urlsplit(proxy)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _get(environment: Mapping[str, str], name: str) -> str:
    return (environment.get(name.upper()) or environment.get(name) or "").strip()


def _bypassed(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether `no_proxy` (or being this very machine) takes the host out: *, names with all below them, addresses,
    networks, each perhaps with a port."""
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return True
    for entry in filter(None, (part.strip().lower() for part in no_proxy.split(","))):
        name, _, wanted = entry.rpartition(":") if entry.count(":") == 1 else (entry, "", "")
        if wanted and wanted != str(port):
            continue
        name = name.strip("[]")
        if name == "*" or name == host.lower() or _in_network(address, name):
            return True
        if address is None and host.lower().endswith("." + name.removeprefix("*").removeprefix(".")):
            return True
    return False


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _in_network(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, text: str) -> bool:
    try:
        return address is not None and address in ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
