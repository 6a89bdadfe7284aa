"""A tiny queue service: what one pushes another takes, once.

POST /QUEUE            the body is appended to QUEUE
GET  /QUEUE?wait=SECS  the oldest body is taken (200), or 204 when none came within SECS (default 0)
GET  /healthz          ok
"""

import argparse
import collections
import http.server
import threading
import urllib.parse


class Queues:
    """Named first-in-first-out queues; `take` waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: collections.defaultdict[str, collections.deque[bytes]] = collections.defaultdict(
            collections.deque
        )

    def push(self, name: str, body: bytes) -> None:
        with self._changed:
            self._queues[name].append(body)
            self._changed.notify_all()

    def take(self, name: str, wait: float) -> bytes | None:
        with self._changed:
            if self._changed.wait_for(lambda: bool(self._queues[name]), wait):
                return self._queues[name].popleft()
            return None


_queues = Queues()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        _queues.push(self.path, self.rfile.read(int(self.headers.get("Content-Length", "0"))))
        self._answer(200, b"")

    def do_GET(self) -> None:
        target = urllib.parse.urlsplit(self.path)
        if target.path == "/healthz":
            self._answer(200, b"ok\n")
            return
        wait = float(urllib.parse.parse_qs(target.query).get("wait", ["0"])[0])
        body = _queues.take(target.path, min(wait, 60))
        self._answer(204 if body is None else 200, body or b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: each job would be a line."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A tiny queue service.")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8090)
    options = parser.parse_args()
    http.server.ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
