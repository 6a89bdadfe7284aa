"""The node's side of the lan, and the walls around it: a laptop reaches the API server and its resolver, no more."""

from integration.cluster.addresses import (
    API_AMONG_SERVICES,
    API_PORT,
    CLUSTER_UPSTREAM,
    LAN_BRIDGE,
    LAN_GATEWAY,
    LAN_RESOLVER,
    LINE_PORTS,
    NODE,
    SERVICES,
)
from integration.cluster.room import Room

_TABLE = "inet tpctl_lan"

_LINES = f"{LINE_PORTS.start}-{LINE_PORTS.stop - 1}"

# A bridge without an address of its own takes the lowest of its ports', so that it would change when laptops come and
# go, and what the others send to the node would be lost until they ask for it anew.
_BRIDGE_MAC = "02:00:00:00:57:01"

# The node has no default route, but the API server calls webhooks by service address: without any route the kernel
# says "unreachable" before kube-proxy's rules are asked.
_SETUP = f"""
ip link set lo up
ip address add {CLUSTER_UPSTREAM}/32 dev lo
ip address add {API_AMONG_SERVICES}/32 dev lo
ip link add {LAN_BRIDGE} address {_BRIDGE_MAC} type bridge
ip address add {NODE}/24 dev {LAN_BRIDGE}
ip address add {LAN_RESOLVER}/24 dev {LAN_BRIDGE}
ip address add {LAN_GATEWAY}/24 dev {LAN_BRIDGE}
ip link set {LAN_BRIDGE} up
ip route add {SERVICES} dev {LAN_BRIDGE} src {NODE}
echo 1 > /proc/sys/net/ipv4/ip_forward
echo 0 > /proc/sys/net/ipv4/conf/{LAN_BRIDGE}/send_redirects
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
echo 16384 60999 > /proc/sys/net/ipv4/ip_local_port_range
"""

# Before kube-proxy's own chains, so that no service address and no node port is reachable from a laptop.
_WALLS = f"""
table {_TABLE} {{
    chain from_laptops {{
        type filter hook prerouting priority raw; policy accept;
        iifname "{LAN_BRIDGE}" jump allowed
    }}
    chain allowed {{
        ip daddr {{ {NODE}, {API_AMONG_SERVICES} }} tcp dport {{ {API_PORT}, {_LINES} }} accept
        ip daddr {LAN_RESOLVER} meta l4proto {{ tcp, udp }} th dport 53 accept
        ip daddr {{ {NODE}, {LAN_RESOLVER}, {LAN_GATEWAY} }} icmp type echo-request accept
        icmp type {{ destination-unreachable, time-exceeded }} accept
        drop
    }}
    set silent {{ type ipv4_addr; }}
    set cut {{ type ipv4_addr; }}
    chain line_in {{
        type filter hook input priority -10; policy accept;
        iifname "{LAN_BRIDGE}" ip saddr @silent tcp dport != 53 drop
        iifname "{LAN_BRIDGE}" ip saddr @cut tcp dport != 53 reject with tcp reset
    }}
    chain line_out {{
        type filter hook output priority -10; policy accept;
        oifname "{LAN_BRIDGE}" ip daddr @silent tcp sport != 53 drop
    }}
}}
"""


def set_up_network(node: Room) -> None:
    """Bridge, addresses and walls inside the node."""
    node.script(_SETUP)
    node.run(["nft", "-f", "-"], stdin=_WALLS)


def silence_line(node: Room, laptop: str) -> None:
    """Drop every packet between the laptop's address and the API server, both ways, without a word."""
    node.run(["nft", "add", "element", *_TABLE.split(), "silent", f"{{ {laptop} }}"])


def cut_line(node: Room, laptop: str) -> None:
    """Reset the laptop's connections to the API server on both ends, and refuse new ones."""
    node.run(["nft", "add", "element", *_TABLE.split(), "cut", f"{{ {laptop} }}"])
    node.run(["ss", "--kill", "--numeric", "--tcp", "dst", laptop])


def restore_line(node: Room, laptop: str) -> None:
    """Undo `silence_line` and `cut_line`."""
    for name in ("silent", "cut"):
        node.run(["nft", "add", "element", *_TABLE.split(), name, f"{{ {laptop} }}"])
        node.run(["nft", "delete", "element", *_TABLE.split(), name, f"{{ {laptop} }}"])
