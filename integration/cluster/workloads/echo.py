"""A server for tests and measurements, with nothing but the standard library.

HTTP (port 8080):  GET /            JSON: pod, answer, method, path, client, headers
                   GET /env         JSON: the environment of this process
                   GET /call?url=U  fetches U from inside the cluster: JSON with status and body, or error
                   GET /healthz     ok
                   POST /           JSON as for GET, with body
TCP echo (port 7007) and UDP echo (port 7007).
Bulk (port 7008): the client sends one line, then
    sink [BYTES]           it sends BYTES, or until it half-closes; answered by a line: bytes and SHA-256
    source BYTES [digest]  it receives BYTES, then (with `digest`) a line with their SHA-256, then the end
    drain KEY              this side half-closes at once and reads to the end
    result KEY             a line: bytes and SHA-256 of `drain KEY`, or `none`
    stall                  this side never reads again until the client goes
"""

import argparse
import asyncio
import hashlib
import json
import os
import random
import socket
import socketserver
import threading
import typing
import urllib.error
import urllib.parse
import urllib.request

_BLOCK = 1 << 20
_PATTERN = random.Random(7).randbytes(_BLOCK)
_NODELAY = (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
_results: dict[str, str] = {}


class Http(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, each answer in one write."""

    def __init__(self, answer: str) -> None:
        self._answer = answer
        self._buffer = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = typing.cast(asyncio.Transport, transport)
        self._peer = transport.get_extra_info("peername")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        while self._task is None and b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            lines = head.decode("latin-1").split("\r\n")
            headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines[1:])}
            size = int(headers.get("content-length", "0"))
            if len(rest) < size:
                return
            self._buffer = rest[size:]
            method, path, _ = lines[0].split(" ", 2)
            self._request(method, path, headers, rest[:size])

    def _request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        target = urllib.parse.urlsplit(path)
        if target.path == "/healthz":
            self._respond(b"ok\n", "text/plain")
        elif target.path == "/env":
            self._respond_json(dict(os.environ))
        elif target.path == "/call":
            url = urllib.parse.parse_qs(target.query)["url"][0]
            self._task = asyncio.get_running_loop().create_task(self._call(url), name=f"call {url}")
        else:
            self._respond_json(
                {
                    "pod": socket.gethostname(),
                    "answer": self._answer,
                    "method": method,
                    "path": path,
                    "client": f"{self._peer[0]}:{self._peer[1]}",
                    "headers": headers,
                    "body": body.decode("latin-1"),
                }
            )

    async def _call(self, url: str) -> None:
        self._respond_json(await asyncio.to_thread(_fetch, url))
        self._task = None
        self._next()

    def _respond_json(self, document: object) -> None:
        self._respond(json.dumps(document).encode() + b"\n", "application/json")

    def _respond(self, body: bytes, kind: str) -> None:
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


def _fetch(url: str) -> dict[str, object]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return {"status": response.status, "body": response.read().decode("latin-1")}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": error.read().decode("latin-1")}
    except OSError as error:
        return {"error": str(error)}


class TcpEcho(asyncio.Protocol):
    """Sends back what comes, and reads no more than the client takes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = typing.cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()


class UdpEcho(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own datagram transport does not derive from the class that describes it.
        self._transport = typing.cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


class Bulk(socketserver.BaseRequestHandler):
    """One thread a connection: bulk is about bytes, not about connections."""

    request: socket.socket

    def handle(self) -> None:
        self.request.setsockopt(*_NODELAY)
        line = b""
        while not line.endswith(b"\n"):
            byte = self.request.recv(1)
            if not byte:
                return
            line += byte
        match line.decode().split():
            case ["sink"]:
                self._say(self._receive(None))
            case ["sink", size]:
                self._say(self._receive(int(size)))
            case ["source", size]:
                self._send(int(size), digest=False)
            case ["source", size, "digest"]:
                self._send(int(size), digest=True)
            case ["drain", key]:
                self.request.shutdown(socket.SHUT_WR)
                _results[key] = self._receive(None)
            case ["result", key]:
                self._say(_results.get(key, "none"))
            case ["stall"]:
                poll = threading.Event()
                while not self._gone():
                    poll.wait(0.2)
            case _:
                self._say("what?")

    def _receive(self, size: int | None) -> str:
        digest = hashlib.sha256()
        buffer = memoryview(bytearray(_BLOCK))
        total = 0
        while size is None or total < size:
            got = self.request.recv_into(buffer if size is None else buffer[: min(_BLOCK, size - total)])
            if not got:
                break
            digest.update(buffer[:got])
            total += got
        return f"{total} {digest.hexdigest()}"

    def _send(self, size: int, *, digest: bool) -> None:
        hashed = hashlib.sha256()
        block = bytearray(_PATTERN)
        number = 0
        while size > 0:
            block[:8] = number.to_bytes(8, "big")  # blocks differ, so that a lost or swapped one shows
            piece = memoryview(block)[: min(size, _BLOCK)]
            if digest:
                hashed.update(piece)
            self.request.sendall(piece)
            size -= len(piece)
            number += 1
        if digest:
            self._say(hashed.hexdigest())

    def _gone(self) -> bool:
        """Whether the client reset the connection; what it sent stays unread."""
        return self.request.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] in (7, 8)  # CLOSE, CLOSE_WAIT

    def _say(self, text: str) -> None:
        self.request.sendall(text.encode() + b"\n")


class BulkServer(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256


async def serve(options: argparse.Namespace) -> None:
    loop = asyncio.get_running_loop()
    host = options.host
    http = await loop.create_server(lambda: Http(options.answer), host, options.http_port, backlog=1024)
    echo = await loop.create_server(TcpEcho, host, options.echo_port, backlog=1024)
    await loop.create_datagram_endpoint(UdpEcho, local_addr=(host, options.echo_port))
    bulk = BulkServer((host, options.bulk_port), Bulk)
    threading.Thread(target=bulk.serve_forever, name="bulk", daemon=True).start()
    async with http, echo:
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="A server for tests and measurements.")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--http-port", type=int, default=8080)
    parser.add_argument("--echo-port", type=int, default=7007)
    parser.add_argument("--bulk-port", type=int, default=7008)
    parser.add_argument("--answer", default=os.environ.get("ANSWER", "the original"))
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
