"""What a worker may ask of the host. Pure: a wish and facts in, what is granted and what is refused out.

A worker runs as the user and talks to a cluster that the user may not own, so its wishes are checked here, by root:

* never the default route, loopback, link-local or multicast;
* never the laptop's own networks, gateways or upstream resolvers: a wider subnet is granted without them;
* outside the private ranges (RFC 1918, RFC 6598, RFC 4193) only what the root-owned policy file lists;
* nothing that another connection has: not its subnets, nor names above or below its domains; and no carrier address
  in another user's subnets or among the devices' own addresses, since those are routed past every device;
* names: `svc`, one cluster domain, namespaces (single labels), reverse names of the granted subnets, and search
  domains below `svc.CLUSTERDOMAIN`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tpd.supervisor.host.types import Address, Facts, Granted, Holder, Network, Upstreams, Wish, collapse
from tpd.tlds import is_taken

MAX_SUBNETS = 512
MAX_BYPASS = 64
MAX_DOMAINS = 1024
MAX_SEARCH = 8
"""Bounds on one wish: a cluster has a handful of subnets, and at most some hundred namespaces."""

_PRIVATE = tuple(
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)
_NEVER = tuple(
    (ipaddress.ip_network(text), why)
    for text, why in (
        ("0.0.0.0/8", "not a destination"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/3", "multicast or reserved"),
        ("::/127", "loopback"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
        ("::ffff:0:0/96", "IPv4 in disguise"),
    )
)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PRIVATE_ENDINGS = frozenset(("corp", "home", "internal", "intranet", "lan", "local", "private"))
_NEVER_SINGLE = frozenset(("alt", "arpa", "invalid", "local", "localhost", "onion"))
"""RFC 6761, RFC 6762, RFC 7686, RFC 9476: these never mean a namespace."""


@dataclass(frozen=True)
class Policy:
    """The contents of the policy file (/etc/tpd/policy.yaml, owned by root)."""

    allow_subnets: tuple[Network, ...] = ()
    """Non-private ranges that workers may route, and everything inside them."""
    allow_domains: tuple[str, ...] = ()
    """Cluster domains under public top-level domains, e.g. k8s.example.com."""


class PolicyError(Exception):
    """The policy file says something that is not understood. The text is one sentence."""


def parse_policy(value: object) -> Policy:
    """The policy in the parsed YAML of its file. Raises PolicyError; an empty file is the default policy."""
    if value is None:
        return Policy()
    if not isinstance(value, Mapping):
        raise PolicyError("the policy file must be a mapping with allowSubnets and allowDomains")
    unknown = sorted(str(key) for key in value if key not in ("allowSubnets", "allowDomains"))
    if unknown:
        raise PolicyError(f"the policy file has an unknown key {unknown[0]}; it knows allowSubnets and allowDomains")
    subnets, domains = [], []
    for text in _texts(value, "allowSubnets"):
        try:
            subnets.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise PolicyError(f"allowSubnets of the policy file: {error}") from error
    for text in _texts(value, "allowDomains"):
        domain = normal_name(text)
        if domain is None or "." not in domain:
            raise PolicyError(f"allowDomains of the policy file: {text!r} is not a domain of at least two labels")
        domains.append(domain)
    return Policy(tuple(subnets), tuple(domains))


def _texts(value: Mapping[object, object], key: str) -> list[str]:
    entries = value.get(key) or []
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise PolicyError(f"{key} of the policy file must be a list of texts")
    return entries


def decide(
    wish: Wish,
    *,
    me: Holder,
    facts: Facts,
    upstreams: Upstreams,
    policy: Policy,
    others: Sequence[Holder],
) -> Granted:
    """What of the wish is granted to the connection `me`, which has what it was granted before."""
    refused: list[str] = []
    subnets = _subnets(wish, facts, policy, others, refused)
    carriers = _carriers(wish, me, others, refused)
    throw = [*carriers, *_throw(subnets, facts, upstreams, refused)]
    refused += [
        f"{carrier} is how the connection {other.owner} reaches its cluster"
        for other in others
        for carrier in other.granted.carriers
        if carrier not in throw and any(contains(subnet, carrier) for subnet in subnets)
    ]
    domains, search = _names(wish, subnets, upstreams, policy, others, refused)
    return Granted(
        subnets=tuple(subnets),
        throw=tuple(dict.fromkeys(throw)),
        carriers=tuple(carriers),
        search=tuple(search),
        domains=tuple(domains),
        dns=wish.dns,
        refused=tuple(refused),
    )


# ---- subnets


def _subnets(wish: Wish, facts: Facts, policy: Policy, others: Sequence[Holder], refused: list[str]) -> list[Network]:
    granted: list[Network] = []
    if len(wish.subnets) > MAX_SUBNETS:
        refused.append(f"{len(wish.subnets) - MAX_SUBNETS} subnets beyond the first {MAX_SUBNETS}")
    for text in wish.subnets[:MAX_SUBNETS]:
        try:
            subnet = ipaddress.ip_network(text)
        except ValueError:
            refused.append(f"{text!r:.60} is not a subnet")
            continue
        reason = _forbidden(subnet, facts, policy, others)
        if reason:
            refused.append(f"{subnet} {reason}")
        else:
            granted.append(subnet)
    return collapse(granted)


def _forbidden(subnet: Network, facts: Facts, policy: Policy, others: Sequence[Holder]) -> str:
    if subnet.prefixlen == 0:
        return "is the default route"
    for network, why in _NEVER:
        if subnet.overlaps(network):
            return f"is {why}" if contains(network, subnet) else f"contains {network} ({why})"
    if not any(contains(allowed, subnet) for allowed in (*_PRIVATE, *policy.allow_subnets)):
        return "is not a private range; list it under allowSubnets in /etc/tpd/policy.yaml to allow it"
    for own in facts.connected:
        if contains(own.network, subnet):
            return f"is inside the laptop's own network {own.network} ({own.device})"
    for route in facts.routed:
        if contains(route, subnet):
            return f"is already routed elsewhere by the laptop (route {route}); end that VPN or remove that route"
    for other in others:
        if any(subnet.overlaps(network) for network in other.granted.subnets):
            return f"is already routed to the connection {other.owner}"
    return ""


def _carriers(wish: Wish, me: Holder, others: Sequence[Holder], refused: list[str]) -> list[Network]:
    carriers: list[Network] = []
    if len(wish.bypass) > MAX_BYPASS:
        refused.append(f"{len(wish.bypass) - MAX_BYPASS} carrier addresses beyond the first {MAX_BYPASS}")
    for text in wish.bypass[:MAX_BYPASS]:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            refused.append(f"{text!r:.60} is not an address")
            continue
        if not _stays(address):
            continue
        reason = _forbidden_carrier(address, me, others)
        if reason:
            refused.append(f"{address} {reason}")
        else:
            carriers.append(single(address))
    return list(dict.fromkeys(carriers))


def _forbidden_carrier(address: Address, me: Holder, others: Sequence[Holder]) -> str:
    """Going past every device, a carrier address takes something from whoever has it; so it must be nobody's yet."""
    for one in (me, *others):
        if address in (one.slot.tun_address, one.slot.dns_address, one.slot.tun_address6):
            return f"is an address of {one.slot.device}, not of a carrier"
    if single(address) in me.granted.carriers:
        return ""  # it had it first
    for other in others:
        has = any(address in subnet for subnet in other.granted.subnets)
        if has and other.uid != me.uid and not any(address in network for network in other.granted.throw):
            return f"is already routed to the connection {other.owner}"
    return ""


def _stays(address: Address) -> bool:
    """Whether a route could lead it anywhere else: loopback and link-local addresses stay where they are."""
    return not address.is_loopback and not address.is_link_local


def _throw(subnets: Iterable[Network], facts: Facts, upstreams: Upstreams, refused: list[str]) -> list[Network]:
    """The laptop's own resolvers always; what else is protected only where a granted subnet covers it."""
    throw: list[Network] = []
    granted = list(subnets)
    for own in facts.connected:
        if any(contains(subnet, own.network) for subnet in granted):
            throw.append(own.network)
            refused.append(f"{own.network} is the laptop's own network ({own.device})")
    networks = {own.network for own in facts.connected}
    refused += [  # they are more specific, so they win
        f"{route} is already routed elsewhere by the laptop"
        for route in facts.routed
        if route not in networks and any(contains(subnet, route) for subnet in granted)
    ]
    for gateway in facts.gateways:
        if any(gateway in subnet for subnet in granted):
            throw.append(single(gateway))
            if not any(gateway in own.network for own in facts.connected):
                refused.append(f"{gateway} is the laptop's gateway")
    for resolver in upstreams.addresses:
        if any(resolver in subnet for subnet in granted):
            refused.append(f"{resolver} is the laptop's own resolver")
        if _stays(resolver):
            throw.append(single(resolver))
    return throw


def single(address: Address) -> Network:
    """The network of one address, without a zone (`%eth0`), which routes do not know."""
    return ipaddress.ip_network(address.packed)


def contains(outer: Network, inner: Network) -> bool:
    """Whether every address of `inner` is in `outer`; never across families."""
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


# ---- names


def normal_name(text: str) -> str | None:
    """The name in lower case without a final dot, or None when it is no DNS name."""
    name = text.lower().rstrip(".")
    if not name or len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.split(".")):
        return None
    return name


def _names(
    wish: Wish,
    subnets: list[Network],
    upstreams: Upstreams,
    policy: Policy,
    others: Sequence[Holder],
    refused: list[str],
) -> tuple[list[str], list[str]]:
    domains: list[str] = []
    root = ""  # the cluster domain: the first of several labels
    if len(wish.domains) > MAX_DOMAINS:
        refused.append(f"{len(wish.domains) - MAX_DOMAINS} domains beyond the first {MAX_DOMAINS}")
    for text in wish.domains[:MAX_DOMAINS]:
        name = normal_name(text)
        if name is None:
            refused.append(f"{text!r:.60} is not a DNS name")
        elif zone := reverse_zone(name):
            if not any(contains(subnet, zone) for subnet in subnets):
                if str(zone) not in wish.subnets:  # that was refused itself, with its reason
                    refused.append(f"the reverse names of {zone}, which is not one of the granted subnets")
            elif name not in domains:
                domains.append(name)
        elif reason := _forbidden_domain(name, wish.named, upstreams, policy):
            refused.append(f"the domain {name} {reason}")
        elif owner := _owner(name, others):
            refused.append(f"the domain {name} already belongs to the connection {owner}")
        elif "." in name and root and name not in (root, f"svc.{root}"):
            refused.append(f"the domain {name} is a second one beside the cluster domain {root}")
        elif name not in domains:
            domains.append(name)
            if "." in name:
                root = root or name
    search: list[str] = []
    roots = {root} if root else set()
    for text in wish.search[:MAX_SEARCH]:
        name = normal_name(text)
        if name is None or not _searchable(name, roots):
            refused.append(f"the search domain {text!r:.80} is not below a granted cluster domain")
        elif name not in search:
            search.append(name)
    return domains, search


def _owner(name: str, others: Sequence[Holder]) -> str | None:
    """Who has this domain, or one that this one would take names from: the longer of two domains wins a name.

    A single label takes nothing from a longer domain that ends in it.
    """
    for other in others:
        for theirs in other.granted.domains if other.granted.dns else ():
            if name == theirs or name.endswith("." + theirs) or ("." in name and theirs.endswith("." + name)):
                return other.owner
    return None


def reverse_zone(name: str) -> Network | None:
    """The addresses whose reverse names lie in this zone, on a label's boundary (RFC 1035 3.5, RFC 3596 2.5)."""
    labels = name.split(".")
    try:
        if labels[-2:] == ["in-addr", "arpa"] and 0 < (count := len(labels) - 2) <= 4:
            numbers = [*reversed(labels[:-2]), *["0"] * (4 - count)]
            return ipaddress.ip_network(f"{'.'.join(numbers)}/{8 * count}")
        if labels[-2:] == ["ip6", "arpa"] and 0 < (count := len(labels) - 2) <= 32:
            digits = "".join(reversed(labels[:-2]))
            return (
                ipaddress.ip_network((int(digits, 16) << 4 * (32 - count), 4 * count)) if len(digits) == count else None
            )
    except ValueError:
        pass
    return None


def _forbidden_domain(name: str, named: frozenset[str], upstreams: Upstreams, policy: Policy) -> str:
    if name == "svc":
        return ""
    for own in upstreams.search:
        if own == name or own.endswith("." + name):
            if "." not in name and name in named:
                continue  # the user asked for it by name; the worker passes on what the cluster does not know
            return f"holds the laptop's own search domain {own}"
        if name.endswith("." + own) and name not in policy.allow_domains:
            return f"is inside the laptop's own search domain {own}; list it under allowDomains in /etc/tpd/policy.yaml"
    last = name.rsplit(".", 1)[-1]
    if "." not in name:
        if name in _NEVER_SINGLE:
            return "has a meaning of its own on every machine"
        if is_taken(name) and name not in named:
            return "is also a public top-level domain; name it with -n or --mapped-namespaces to have it"
        return ""
    if name in policy.allow_domains:
        return ""
    if last in _NEVER_SINGLE and last != "local":
        return "has a meaning of its own on every machine"
    if is_taken(last) and last not in _PRIVATE_ENDINGS:
        return "is public; list it under allowDomains in /etc/tpd/policy.yaml to allow it"
    return ""


def _searchable(name: str, roots: set[str]) -> bool:
    """CLUSTERDOMAIN, svc.CLUSTERDOMAIN or NAMESPACE.svc.CLUSTERDOMAIN of a granted cluster domain."""
    for root in roots:
        if name in (root, f"svc.{root}"):
            return True
        namespace, _, rest = name.partition(".")
        if namespace and rest == f"svc.{root}":
            return True
    return False
