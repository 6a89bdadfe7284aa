"""`make demo`: a laptop inside a cluster, step by step, each with its real command and real output."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence

from integration.cluster import images
from integration.cluster.cluster import Cluster
from integration.cluster.errors import ClusterError
from integration.cluster.laptop import Laptop
from integration.cluster.places import DEFAULT_NAME
from integration.cluster.services import wait_for_services
from integration.demo import manifests
from integration.demo.show import DemoError, Terminal, note, title

LAPTOP = "demo"
_HERE = "integration/demo/shop.py"


def main(arguments: Sequence[str] | None = None) -> int:
    """Show it; the exit status says whether every step did what it should."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--name", default=DEFAULT_NAME, help="which local cluster")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    try:
        title("A real Kubernetes on this machine, in namespaces of its own")
        cluster = Cluster.up(options.name)
        cluster.load([images.test(), images.manager(), images.agent()])
        _show(cluster)
    except (DemoError, ClusterError) as error:
        sys.stdout.write(f"\nThe demo stopped: {error}\n")
        return 1
    except KeyboardInterrupt:
        again, away = (_make(target, options.name) for target in ("demo", "cluster-down"))
        sys.stdout.write(f"\nThe demo was interrupted; {again} begins anew, {away} takes everything away.\n")
        return 1
    note(f"The whole demo took {time.monotonic() - begun:.0f} s.")
    _how_to_go_on(options.name)
    return 0


def _show(cluster: Cluster) -> None:
    title("A shop in the cluster: front calls orders by name; worker exposes no port and takes jobs from queue")
    objects = {"apiVersion": "v1", "kind": "List", "items": manifests.shop(images.test().name)}
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(objects))
    for name in ("front", "orders", "queue", "worker"):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "-n", manifests.NAMESPACE, "--timeout=90s")
    wait_for_services(cluster, manifests.NAMESPACE, ("front", "orders", "queue"))

    title("A laptop: it reaches the API server and nothing else of the cluster")
    laptop = Laptop.create(cluster, LAPTOP, anew=True)
    terminal = Terminal(laptop)
    terminal.run("kubectl get pods -n shop -o wide")
    terminal.run("! curl -sS --max-time 3 http://front.shop/")
    before = laptop.host_state()

    title("Install the traffic-manager (once for each cluster)")
    # The digest makes a new pod of the manager where the image is new under its old name.
    values = f"--set-string podAnnotations.image={cluster.digest('manager')}"
    terminal.run(f"tpctl helm upgrade {values} || tpctl helm install {values}", timeout=180)

    title("Connect")
    note("The daemon runs as root and starts with the machine (a systemd unit); here it is started by hand.")
    terminal.run("tpctl daemon start", user="root")
    terminal.run("tpctl connect -n shop", expect="shop")
    terminal.run("curl -sS http://front/", expect="3 orders, says the pod orders-")
    terminal.run("curl -sS http://front.shop.svc.cluster.local/", expect="3 orders")
    terminal.run("curl -sS -X POST -d job-1 http://queue/jobs && sleep 1 && curl -sS http://queue/done", expect="job-1")
    note("Honest: a closed port is refused, not opened and then broken.")
    terminal.run("curl -sS http://front:81/ || true", expect="refused|Could(n't| not) connect|Failed to connect")
    try:
        _replace(terminal)
    finally:
        terminal.end_background()

    title("Quit: the laptop is as before")
    terminal.run("tpctl quit -s", user="root")
    if laptop.host_state() != before:
        raise DemoError("the laptop's rules, routes, resolver or links are not as before")
    note("ip rule, ip route show table all, nft list ruleset, links and /etc/resolv.conf: the same text as before.")


def _replace(terminal: Terminal) -> None:
    title("Replace the back end by a process on the laptop")
    orders = f"python3 {_HERE} orders --who 'my laptop' --address 127.0.0.1"
    terminal.begin(orders, "/tmp/tpctl-demo-orders.log")
    terminal.run("tpctl replace orders", expect="orders")
    terminal.run("kubectl get pods -n shop -l app=orders")
    note("The front end in the cluster now shows the laptop's answer:")
    terminal.until("curl -sS http://front/", expect="3 orders, says my laptop")

    title("Replace the worker, which has no port at all")
    work = f"python3 -u {_HERE} worker --who 'my laptop'"
    terminal.run("tpctl replace worker --env-file /tmp/tpctl-demo-worker.env", expect="worker")
    terminal.begin(f"env $(grep QUEUE_URL /tmp/tpctl-demo-worker.env) {work}", "/tmp/tpctl-demo-worker.log")
    terminal.run("curl -sS -X POST -d job-2 http://queue/jobs")
    terminal.until("curl -sS http://queue/done", expect="job-2 done by my laptop")

    title("Who is using what?")
    terminal.run("tpctl status")
    terminal.run("kubectl get engagements -A", expect="orders")

    title("Give both back")
    terminal.run("tpctl leave worker", timeout=60)
    terminal.run("tpctl leave orders", timeout=60)
    terminal.until("curl -sS http://front/", expect="3 orders, says the pod orders-")


def _make(target: str, cluster: str) -> str:
    return f"make {target}" + ("" if cluster == DEFAULT_NAME else f" CLUSTER={cluster}")


def _how_to_go_on(cluster: str) -> None:
    which = "" if cluster == DEFAULT_NAME else f"--name {cluster} "
    title("Go on by hand")
    note(f"a shell in the laptop:   .venv/bin/python -m integration.cluster {which}laptop shell {LAPTOP}")
    note("then, for example:       tpctl daemon start (as root), tpctl connect -n shop, curl http://front/")
    note(f"clean up everything:     {_make('cluster-down', cluster)}")


if __name__ == "__main__":
    sys.exit(main())
