"""Every address of the harness. All of them exist only inside rooms, so clusters side by side may share them."""

LAN = "192.168.57.0/24"
"""Between laptops and the node, like a home network."""
LAN_BRIDGE = "lan0"
NODE = "192.168.57.1"
API_PORT = 6443
API_AMONG_SERVICES = "10.96.255.254"
"""The API server once more, at an address inside the subnet of services: some clusters are like that."""
LAN_RESOLVER = "192.168.57.53"
"""What laptops have in their resolv.conf."""
LAN_GATEWAY = "192.168.57.254"
"""The laptops' default route; it takes every packet and forwards none."""
LINE_PORTS = range(7000, 7200)
"""Ports on `NODE` where delaying lines listen, one a laptop."""
FIRST_LAPTOP = 10
"""Last octet of the first laptop's address."""

SERVICES = "10.96.0.0/16"
PODS = "10.244.0.0/16"
PODS_OF_NODE = "10.244.0.0/24"
KUBERNETES_SERVICE = "10.96.0.1"
CLUSTER_DNS = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
CLUSTER_UPSTREAM = "10.255.0.53"
"""The resolver to which CoreDNS sends what is not the cluster's; on the node's loopback."""

NODE_NAME = "node-1"
API_NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
API_HOST = "api.corp.example"
"""A name of the API server that the lan's resolver knows."""
