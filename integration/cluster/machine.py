"""The machine's own state, as text: to show that nothing of a cluster is left on it.

An ordinary machine has a life of its own: addresses are leased, logs are rotated, people log in. What changes by that
is left out.
"""

import os
import re
import shutil
from collections.abc import Iterable
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
_COUNTING_DOWN = re.compile(r" (?:valid_lft|preferred_lft|expires) \S+")
_CAN_BE_OURS = re.compile(r"tpctl|kube|containerd|etcd|coredns|cni\b|laptop|/pods|netns")
_DIRECTORIES = ("/run/netns", "/var/lib", "/var/log", "/usr/libexec", "/opt", "/etc")


def machine_state() -> dict[str, str]:
    """Links, addresses, rules, routes, nft tables, mounts, control groups, kernel settings and directories."""
    state = {" ".join(command): steady(run(command)) for command in _COMMANDS if shutil.which(command[0])}
    state["mounts"] = can_be_ours(Path("/proc/self/mounts").read_text().splitlines())
    state["control groups"] = can_be_ours(sorted(folder for folder, _, _ in os.walk("/sys/fs/cgroup")))
    state["resolver"] = Path("/etc/resolv.conf").read_text()
    for setting in _SETTINGS:
        state[setting] = Path("/proc/sys", setting).read_text()
    for directory in _DIRECTORIES:
        if Path(directory).exists():
            entries = (f"{directory}/{name}" for name in os.listdir(directory))
            state[directory] = can_be_ours(sorted(entries))
    return state


def steady(text: str) -> str:
    """What `ip` says, without what counts down by itself."""
    return _COUNTING_DOWN.sub("", text)


def can_be_ours(lines: Iterable[str]) -> str:
    """Of mounts, control groups or files those that a cluster could have made."""
    return "\n".join(line for line in lines if _CAN_BE_OURS.search(line))
