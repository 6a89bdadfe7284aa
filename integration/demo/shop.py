"""A small shop of four programs in one file, standard library only: front, orders, queue, worker.

front   answers GET / with what orders says (it calls http://orders/ by name)
orders  answers GET / with a line that says who it is
queue   keeps jobs: POST /jobs adds one, GET /jobs/next hands one out (204 when there is none),
        POST /done records a result, GET /done lists results
worker  exposes no port: takes jobs from the queue and records who did them
"""

from __future__ import annotations

import argparse
import collections
import http.server
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

Answer = tuple[int, str]


def fetch(url: str, body: str | None = None) -> Answer:
    """One request; (status, text)."""
    data = None if body is None else body.encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=5) as response:
        return response.status, response.read().decode()


class Front:
    """Asks orders."""

    def __init__(self, url: str) -> None:
        self.url = url

    def answer(self, method: str, path: str, body: str) -> Answer:
        try:
            return 200, f"shop: {fetch(self.url)[1]}"
        except OSError as error:
            return 502, f"shop: orders is away ({error})\n"


class Orders:
    """Says who answers."""

    def __init__(self, who: str) -> None:
        self.who = who

    def answer(self, method: str, path: str, body: str) -> Answer:
        return 200, f"3 orders, says {self.who}\n"


class Queue:
    """Jobs in, jobs out, results."""

    def __init__(self) -> None:
        self.jobs: collections.deque[str] = collections.deque()
        self.done: list[str] = []

    def answer(self, method: str, path: str, body: str) -> Answer:
        if (method, path) == ("POST", "/jobs"):
            self.jobs.append(body)
            return 202, "queued\n"
        if (method, path) == ("GET", "/jobs/next"):
            return (200, self.jobs.popleft()) if self.jobs else (204, "")
        if (method, path) == ("POST", "/done"):
            self.done.append(body)
            return 200, "noted\n"
        if (method, path) == ("GET", "/done"):
            return 200, "".join(f"{line}\n" for line in self.done)
        return 404, "no such thing\n"


def serve(program: Front | Orders | Queue, address: str, port: int) -> None:
    """Answer HTTP until ended."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def respond(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, text = program.answer(self.command, self.path, body)
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = respond  # noqa: N815  # names that http.server looks for

        def log_message(self, *arguments: object) -> None:
            pass

    http.server.ThreadingHTTPServer((address, port), Handler).serve_forever()


def work(queue: str, who: str) -> None:
    """Take jobs for ever; the queue may be away for a while."""
    while True:
        try:
            status, job = fetch(f"{queue}/jobs/next")
            if status == 200:
                sys.stdout.write(f"worker {who}: did {job}\n")
                sys.stdout.flush()
                fetch(f"{queue}/done", f"{job} done by {who}")
                continue
        except OSError as error:
            sys.stdout.write(f"worker {who}: {error}\n")
            sys.stdout.flush()
        time.sleep(0.3)


def main() -> None:
    """Run one of the four."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=["front", "orders", "queue", "worker"])
    parser.add_argument("--who", default=f"the pod {socket.gethostname()}")
    parser.add_argument("--address", default="")
    parser.add_argument("--port", type=int, default=8080)
    options = parser.parse_args()
    if options.program == "worker":
        work(os.environ["QUEUE_URL"], options.who)
    elif options.program == "front":
        serve(Front(os.environ["ORDERS_URL"]), options.address, options.port)
    else:
        serve(Orders(options.who) if options.program == "orders" else Queue(), options.address, options.port)


if __name__ == "__main__":
    main()
