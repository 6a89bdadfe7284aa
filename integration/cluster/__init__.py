"""A real single-node Kubernetes, and laptops that reach nothing of it but its API server.

Words:
- a *room* is a set of Linux namespaces held by one process; killing that process ends everything in it;
- the *node* is the room in which the whole cluster runs;
- a *laptop* is a room joined to the node by one Ethernet-like link, the *lan*;
- the *line* of a laptop is its way to the API server; it may have latency, be cut, or fall silent.

Nothing here touches the machine's own links, routes, nft tables, resolver or mounts.
`python -m integration.cluster --help` is the same by hand.
"""

from integration.cluster.errors import ClusterError
from integration.cluster.places import Places

__all__ = ["ClusterError", "Places"]
