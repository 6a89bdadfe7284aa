"""The two small programs on the lan, `line.py` and `names.py`, and how they are called."""

import sys
from pathlib import Path

from integration.cluster import addresses as at
from integration.cluster.places import CODE, Places
from integration.cluster.room import Room

_OUTSIDE_NAMES = {
    "www.corp.example": "198.51.100.10",
    "intranet.corp.example": "198.51.100.11",
    "example.org": "198.51.100.12",
    "www.example.org": "198.51.100.12",
    at.API_HOST: at.NODE,
}


def line_program(
    listen: str, to: str, *, rtt: float = 0.0, enter: str | None = None, port_file: Path | None = None
) -> list[str]:
    """The command line of a line between two `ADDRESS:PORT`s; see `line.py`."""
    words = [sys.executable, "-I", str(CODE / "line.py"), f"--listen={listen}", f"--to={to}", f"--rtt={rtt}"]
    if enter:
        words.append(f"--enter-net={enter}")
    if port_file:
        words.append(f"--port-file={port_file}")
    return words


def questions_log(places: Places) -> Path:
    """What the resolvers of the outside world were asked, a JSON line each; see `names.py`."""
    return places.root / "questions.jsonl"


def start_resolvers(places: Places, node: Room) -> None:
    """The lan's resolver, which laptops use, and the one to which the cluster's DNS sends what is not its own."""
    words = [sys.executable, "-I", str(CODE / "names.py"), f"--log={questions_log(places)}"]
    words += [f"--listen=lan={at.LAN_RESOLVER}", f"--listen=cluster={at.CLUSTER_UPSTREAM}"]
    words += [f"--answer={name}={address}" for name, address in _OUTSIDE_NAMES.items()]
    questions_log(places).touch()
    node.start(words, log=places.logs / "names.log")
