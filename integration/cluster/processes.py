"""A process in a room, driven from outside it."""

import os
import subprocess
from pathlib import Path


class RoomProcess(subprocess.Popen[str]):
    """`nsenter` with the program as its child: signals go to the program, and die with nsenter it does by itself."""

    def send_signal(self, sig: int) -> None:
        """Send `sig` to the program itself (nsenter passes none on)."""
        self.poll()
        if self.returncode is not None:
            return
        inner = self.inner_pid()
        if inner is None:
            super().send_signal(sig)
        else:
            os.kill(inner, sig)

    def inner_pid(self) -> int | None:
        """The program's process id as the machine counts."""
        try:
            children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        except OSError:
            return None
        return int(children[0]) if children else None
