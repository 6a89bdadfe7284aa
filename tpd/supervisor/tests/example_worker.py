"""A session worker for tests: it speaks the control protocol and asks for what its environment says.

Workloads of `replace` choose what it does: "die" (SIGKILL itself), "whoami" (who and where it is), "hang",
"inject" (write the packet that `container` has as hex), "wish" (ask for the HostConfig that `container` has as JSON),
"garbage" (send tpd the bytes that `container` has as hex, and nothing more), "deaf" (read and answer nothing more),
"orphan" (leave a child in a session of its own that keeps the output open), "flood" (progress without end, then an
answer), "wishes" (ask for as many HostConfigs as `container` says, and read no answer). What is replaced is in
the status until it is left; "late" is left only when workloads are listed meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

from tpd.supervisor import keyring
from tunnel import control
from tunnel.proto import daemon_pb2 as pb


class ExampleWorker:
    def __init__(self, start: pb.WorkerStart, tun: int, writer: asyncio.StreamWriter) -> None:
        self.start = start
        self.tun = tun
        self.writer = writer
        self.result: pb.ConnectResult | None = None
        self.reply = asyncio.Event()
        self.last = pb.HostReply()
        self.cancelled: list[int] = []
        self.upstreams = start.upstreams
        self.engaged: dict[str, pb.EngagementStatus] = {}
        self.listed = asyncio.Event()

    def send(self, message: pb.FromWorker) -> None:
        self.writer.write(control.encode(message))

    def answer(self, number: int, event: pb.Event) -> None:
        self.send(pb.FromWorker(event=pb.ForwardedEvent(id=number, event=event)))

    async def serve(self, reader: asyncio.StreamReader) -> None:
        async with asyncio.TaskGroup() as tasks:
            while (message := await control.read(reader, pb.ToWorker)) is not None:
                match message.WhichOneof("message"):
                    case "host_reply":
                        self.last = message.host_reply
                        self.reply.set()
                    case "request":
                        tasks.create_task(self.request(message.request.id, message.request.request))
                    case "upstreams":
                        self.upstreams = message.upstreams
                    case "cancel":
                        self.cancelled.append(message.cancel)
            os._exit(0)

    async def request(self, number: int, request: pb.Request) -> None:
        match request.WhichOneof("command"):
            case "connect":
                await self.connect(number, request.connect)
            case "status":
                status = pb.ConnectionStatus(
                    connection=self.result, state="connected", engagements=self.engaged.values()
                )
                self.answer(number, pb.Event(status=pb.StatusResult(connections=[status])))
            case "replace":
                await self.replace(number, request.replace)
            case "list":
                self.listed.set()
                one = pb.Workload(
                    kind="Deployment", name="echo", namespace=request.list.namespace, containers=["app", "side"]
                )
                self.answer(number, pb.Event(list=pb.ListResult(workloads=[one])))
            case "leave":
                name = request.leave.workload.removeprefix("deployment/")
                if name == "late":
                    self.listed.clear()
                    self.answer(number, pb.Event(progress=pb.Progress(step="leave", text="leaving")))
                    await self.listed.wait()
                left = self.engaged.pop(name, None)
                self.answer(number, pb.Event(leave=pb.LeaveResult(left=[left] if left else [])))
            case "quit":
                self.answer(number, pb.Event(progress=pb.Progress(step="quit", text="releasing")))
                self.answer(number, pb.Event(quit=pb.QuitResult()))

    async def connect(self, number: int, connect: pb.Connect) -> None:
        self.answer(number, pb.Event(progress=pb.Progress(step="session", text="making the session")))
        name = connect.name or f"example-{connect.namespace or 'default'}"
        if self.result is not None:
            if self.result.name != name:
                text = f"already connected as {self.result.name}; run: tpctl quit"
                self.answer(number, pb.Event(error=pb.Error(text=text, category=pb.USER)))
                return
            again = pb.ConnectResult()
            again.CopyFrom(self.result)
            again.existed = True
            self.answer(number, pb.Event(connect=again))
            return
        if connect.namespace == "refused":
            self.answer(number, pb.Event(error=pb.Error(text="no manager there", category=pb.CLUSTER)))
            return
        config = pb.HostConfig(id=1, **json.loads(os.environ.get("EXAMPLE_HOST", "{}")))
        self.send(pb.FromWorker(host=config))
        await self.reply.wait()
        if self.last.error:
            self.answer(number, pb.Event(error=pb.Error(text=self.last.error)))
            return
        self.result = pb.ConnectResult(
            name=name,
            namespace=connect.namespace,
            context="example",
            server="https://example.invalid",
            device=self.start.device,
            dns_address=self.start.dns_address,
            subnets=config.subnets,
        )
        self.answer(number, pb.Event(connect=self.result))

    async def replace(self, number: int, replace: pb.Replace) -> None:
        if replace.workload == "die":
            os.write(1, b"about to die\n")
            os.kill(os.getpid(), signal.SIGKILL)
        if replace.workload == "wish":  # another HostConfig, as JSON in `container`
            self.reply.clear()
            self.send(pb.FromWorker(host=pb.HostConfig(id=2, **json.loads(replace.container))))
            await self.reply.wait()
        if replace.workload == "inject":  # a packet from the device, whatever it says
            os.write(self.tun, bytes(10) + bytes.fromhex(replace.container))
        if replace.workload == "garbage":
            self.writer.write(bytes.fromhex(replace.container))
            self.writer.write_eof()
            return
        if replace.workload in ("deaf", "wishes"):
            self.answer(number, pb.Event(progress=pb.Progress(step="deaf", text="deaf from now on")))
            for _ in range(int(replace.container or "0")):
                self.send(pb.FromWorker(host=pb.HostConfig(id=3)))
            time.sleep(3600)  # noqa: ASYNC251  nothing is read while it lasts
        if replace.workload == "orphan":
            child = subprocess.Popen(["sleep", "30"], start_new_session=True)  # noqa: ASYNC220
            self.answer(number, pb.Event(replace=pb.ReplaceResult(environment={"pid": str(child.pid)})))
            return
        if replace.workload == "flood":
            progress = pb.Event(progress=pb.Progress(step="flood", text="x" * 10_000))
            for _ in range(200):
                self.answer(number, progress)
        if replace.workload == "hang":
            self.answer(number, pb.Event(progress=pb.Progress(step="hang", text="hanging")))
            await asyncio.sleep(3600)
        known = {
            "uid": str(os.getuid()),
            "gid": str(os.getgid()),
            "groups": json.dumps(sorted(os.getgroups())),
            "keyring": str(keyring.session()),
            "session": str(os.getsid(0) == os.getpid()),
            "cwd": os.getcwd(),
            "fds": json.dumps(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))),
            "isolated": str(sys.flags.isolated),
            "refused": json.dumps(list(self.last.refused)),
            "resolver": self.last.resolver,
            "environment": json.dumps(dict(os.environ)),
            "start": str(self.start),
            "upstreams": str(self.upstreams),
            "cancelled": json.dumps(self.cancelled),
        }
        one = pb.EngagementStatus(workload=f"deployment/{replace.workload}", namespace="demo", container="app")
        self.engaged[replace.workload] = one
        self.answer(number, pb.Event(replace=pb.ReplaceResult(environment=known, engagement=one)))


async def main() -> None:
    sock = control.inherited_socket(int(sys.argv[sys.argv.index("--control-fd") + 1]))
    message, tun = control.receive_with_fd(sock, pb.ToWorker)
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock)
    await ExampleWorker(message.start, tun, writer).serve(reader)


if __name__ == "__main__":
    asyncio.run(main())
