"""Where the harness keeps things: binaries that outlive it, and state that does not."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

CODE = Path(__file__).resolve().parent
REPOSITORY = CODE.parent.parent
DEFAULT_NAME = "default"


def cache_directory() -> Path:
    """What takes long to make and is kept between runs: `$TPCTL_CACHE`, else the user's cache directory."""
    chosen = os.environ.get("TPCTL_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tpctl"


@dataclass(frozen=True)
class Places:
    """The run directory of the cluster called `name`; several clusters live side by side under several names."""

    name: str = DEFAULT_NAME

    @property
    def root(self) -> Path:
        return Path(os.environ.get("TPCTL_CLUSTER_RUN", "/run/tpctl-cluster")) / self.name

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def config(self) -> Path:
        return self.root / "config"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def laptops(self) -> Path:
        return self.root / "laptops"

    @property
    def state(self) -> Path:
        """JSON: what a second command needs to find the running cluster."""
        return self.root / "state.json"

    @property
    def cgroup(self) -> str:
        """The control group, in every hierarchy, below which this cluster's pods live."""
        return f"/tpctl-cluster-{self.name}"

    @property
    def added_controllers(self) -> Path:
        """Which controllers the machine's root control group passes on only because of our clusters."""
        return self.root.parent / "controllers.json"


_OF_ONE_PROCESS = re.compile(r"(?:traces|external)-(\d+)")


def left_by_killed_runs() -> list[str]:
    """Names of clusters that belong to one process (the number in the name) that is not there any more."""
    names = [folder.name for folder in Places().root.parent.glob("*-*")]
    return [name for name in names if (of := _OF_ONE_PROCESS.fullmatch(name)) and not Path("/proc", of[1]).exists()]
