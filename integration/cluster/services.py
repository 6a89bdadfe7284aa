"""Waiting for Services: a Deployment that is rolled out says nothing about kube-proxy, which learns of it later."""

import json
from collections.abc import Sequence

from integration.cluster.cluster import Cluster

_CONNECT = """
import socket, sys, time
deadline = time.monotonic() + float(sys.argv[1])
for each in sys.argv[2:]:
    host, _, port = each.rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{each} accepts no connection: {error}")
            time.sleep(0.02)
"""


def wait_for_services(cluster: Cluster, namespace: str, names: Sequence[str], *, timeout: float = 20) -> None:
    """Return when every TCP port of these Services accepts a connection; `ClusterError` after `timeout` seconds.

    Until kube-proxy knows of an endpoint that is ready, it refuses them. Headless Services have no address to ask.
    """
    if not names:
        return
    words = ["get", "services", f"--namespace={namespace}", "-o", "json", "--field-selector=spec.clusterIP!=None"]
    addresses = [
        f"{service['spec']['clusterIP']}:{port['port']}"
        for service in json.loads(cluster.kubectl(*words))["items"]
        if service["metadata"]["name"] in names
        for port in service["spec"].get("ports", ())
        if port["protocol"] == "TCP"
    ]
    cluster.python(_CONNECT, str(timeout), *addresses, timeout=timeout + 20)
