"""tpd with a host that only remembers: `python -I -m tpd.supervisor.tests.memory_daemon SOCKET`.

For tests of the socket, the workers and the CLI without root. What it serves runs `example_worker`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from tpd.supervisor.host.memory import MemoryHost
from tpd.supervisor.server import Server
from tpd.supervisor.supervisor import Supervisor
from tunnel.aio.tasks import Tasks


async def serve(socket: Path) -> None:
    tasks = Tasks("tpd")
    supervisor = Supervisor(MemoryHost(), tasks, module="tpd.supervisor.tests.example_worker")
    server = Server(socket, supervisor.handle, starter=os.getuid())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, supervisor.stop.set)
    await server.start()
    os.write(1, b"ready\n")
    await supervisor.stop.wait()
    await server.close()
    await supervisor.shutdown()
    await server.drain(2)
    await tasks.stop()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
