"""A traffic-agent in the hands of somebody else: it runs in the agent's container, with the agent's own token.

Standard input: {"port", "session", "opens": [[STREAM or DATAGRAM, hex], ...], "query": hex}. It gets a certificate for
its pod, serves on `port`, and as soon as the session has a link it opens all of these on it and prints what came of
each (one line of JSON). Then it answers every carrier that comes with garbage, and prints a line for each.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from agent.registry import Registry
from tunnel import agentconfig
from tunnel.aio.byte_stream import ByteStream
from tunnel.aio.grpc_stream import MESSAGE_OPTIONS, tunnel_rpc_handler
from tunnel.aio.link_server import LinkServer
from tunnel.endpoint import EndpointHandler, Refusal
from tunnel.mux.errors import GoAway
from tunnel.mux.flow import Flow, FlowHandler, FlowKind
from tunnel.mux.handshake import go_away
from tunnel.mux.link import Link
from tunnel.mux.queries import Query

Outcome = asyncio.Future[str]


class Try(FlowHandler):
    """A flow towards the laptop, until it is opened or refused."""

    def __init__(self) -> None:
        self.outcome: Outcome = asyncio.get_running_loop().create_future()

    def on_opened(self) -> None:
        self.outcome.set_result("OPENED")

    def on_refused(self, refusal: Refusal, detail: str) -> None:
        self.outcome.set_result(refusal.name)


class Refusing:
    """Serves the laptop nothing."""

    def on_open(self, flow: Flow, body: bytes) -> EndpointHandler:
        flow.refuse(Refusal.PROHIBITED)
        return FlowHandler()

    def on_query(self, query: Query) -> None:
        query.reply(b"")


class CompromisedAgent:
    """Does what the module's text says."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self._wanted = wanted
        self._linked: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._links = LinkServer(make_acceptor=lambda session, link: Refusing(), name="bad", on_attached=self._attached)
        self._tried = False
        self._carriers = 0

    async def run(self) -> None:
        """For as long as somebody reads what it prints."""
        config = agentconfig.parse(os.environ[agentconfig.ENV_CONFIG])
        manager, root = config.manager, os.environ[agentconfig.ENV_ROOT].encode()
        token = Path(agentconfig.TOKEN_FILE)
        own = await Registry(f"{manager.address}:{manager.port}", manager.namespace, root, token).certify()
        server = grpc.aio.server(options=MESSAGE_OPTIONS)
        server.add_generic_rpc_handlers((tunnel_rpc_handler(self._serve),))
        credentials = grpc.ssl_server_credentials([(own.key, own.chain)], own.root, require_client_auth=True)
        server.add_secure_port(f"0.0.0.0:{self._wanted['port']}", credentials)
        await server.start()
        say("serving")
        say(await self._try(await self._linked))
        self._tried = True
        self._links.close()
        await server.wait_for_termination()

    def _attached(self, session: str, link: Link, attached: bool) -> None:
        if attached and not self._linked.done():
            self._linked.set_result(link)

    async def _try(self, link: Link) -> dict[str, Any]:
        tries = []
        for kind, body in self._wanted["opens"]:
            tries.append(Try())
            link.open(FlowKind[kind], bytes.fromhex(body), tries[-1])
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        link.query(bytes.fromhex(self._wanted["query"]), answer.set_result)
        opens = await asyncio.gather(*(each.outcome for each in tries))
        return {"opens": opens, "answer": (await answer or b"").hex()}

    async def _serve(self, stream: ByteStream, context: object) -> None:
        if not self._tried:
            await self._links.serve(stream, self._wanted["session"])
            return
        hello = await stream.read() or b""
        garbage = (os.urandom(200), b"", bytes(1 << 20), hello[:-1], hello + hello, go_away(GoAway.PROTOCOL, "\x1b[2J"))
        await stream.write(garbage[self._carriers % len(garbage)])
        self._carriers += 1
        say(self._carriers)
        await asyncio.sleep(0.2)


def say(what: object) -> None:
    """One line."""
    print(json.dumps(what), flush=True)  # noqa: T201  this is its answer


async def main() -> None:
    await CompromisedAgent(json.loads(sys.stdin.readline())).run()


if __name__ == "__main__":
    asyncio.run(main())
