"""How a command fails."""

from __future__ import annotations


class CommandError(Exception):
    """The command is not done. The text is one sentence for the user that says what to do."""


class NotRunning(CommandError):
    """Nobody serves the daemon's socket, or whoever did has just ended."""


class ExitStatus(Exception):
    """End with this exit status, silently: the handler's own (`-- CMD`)."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status
