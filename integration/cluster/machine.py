"""The machine's own state, as text: to show that nothing of a cluster is left on it."""

import os
import shutil
from pathlib import Path

from integration.cluster.commands import run

_COMMANDS = (
    ("ip", "-details", "-oneline", "link"),
    ("ip", "-oneline", "address"),
    ("ip", "rule"),
    ("ip", "-6", "rule"),
    ("ip", "route", "show", "table", "all"),
    ("ip", "-6", "route", "show", "table", "all"),
    ("nft", "--stateless", "list", "ruleset"),
)
_SETTINGS = ("vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward")
_DIRECTORIES = ("/run/netns", "/var/lib", "/var/log", "/usr/libexec", "/opt", "/etc")


def machine_state() -> dict[str, str]:
    """Links, addresses, rules, routes, nft tables, mounts, control groups, kernel settings and directories."""
    state = {" ".join(command): run(command) for command in _COMMANDS if shutil.which(command[0])}
    state["mounts"] = Path("/proc/self/mounts").read_text()
    state["control groups"] = "\n".join(sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup")))
    state["resolver"] = Path("/etc/resolv.conf").read_text()
    for setting in _SETTINGS:
        state[setting] = Path("/proc/sys", setting).read_text()
    for directory in _DIRECTORIES:
        if Path(directory).exists():
            state[directory] = "\n".join(sorted(os.listdir(directory)))
    return state
