"""The system's own processes, as the machine sees them."""

from __future__ import annotations

from pathlib import Path


def of_pod(uid: str, module: str) -> int:
    """The process that runs `python -m MODULE` in this pod (ours have the variable POD_UID)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            argv = (entry / "cmdline").read_bytes().split(b"\0")[:-1]
            if argv[-1:] == [module.encode()] and f"POD_UID={uid}".encode() in (entry / "environ").read_bytes():
                return int(entry.name)
        except OSError:  # it ended meanwhile
            continue
    raise AssertionError(f"{module} does not run in pod {uid}")


def resident(pid: int) -> int:
    """Bytes of memory that are the process's own (VmRSS without shared files: proc_pid_status(5), RssAnon)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no memory")
