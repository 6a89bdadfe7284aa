"""Running the host's own tools: absolute paths, an empty environment, a deadline."""

from __future__ import annotations

import asyncio
import os

from tpd.supervisor.host.types import HostError

_FOLDERS = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
_ENVIRONMENT = {"PATH": ":".join(_FOLDERS), "LC_ALL": "C.UTF-8"}
DEADLINE = 5.0
"""Seconds. These tools answer in milliseconds; one that hangs must not hold up a connect."""


def find(name: str) -> str | None:
    """The tool's path in the folders that only root writes, or None."""
    for folder in _FOLDERS:
        path = os.path.join(folder, name)
        if os.access(path, os.X_OK):
            return path
    return None


async def run(*arguments: str, text: str = "", deadline: float = DEADLINE) -> str:
    """Run a tool to its end and return what it printed. Raises HostError when it fails, with its last line."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_ENVIRONMENT,
        cwd="/",
    )
    name = os.path.basename(arguments[0])
    try:
        async with asyncio.timeout(deadline):
            output, errors = await process.communicate(text.encode())
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise HostError(f"{name} did not end within {deadline:g} s") from error
    if process.returncode:
        lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
        raise HostError(f"{name} failed: {lines[0] if lines else f'exit status {process.returncode}'}")
    return output.decode(errors="replace")
