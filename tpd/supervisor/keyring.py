"""The kernel's session keyring (session-keyring(7)): each worker gets an empty one, not that of who started tpd."""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import sys

log = logging.getLogger("tpd.keyring")

_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "loongarch64": 219, "ppc64le": 271, "s390x": 280}
"""The number of keyctl(2), which libc has no function for."""
_GET_KEYRING_ID, _JOIN_SESSION_KEYRING = 0, 1
_SESSION = -3


def join_new_one() -> None:
    """Give this thread, and the processes that it starts from now on, a session keyring that nobody else has.

    Where the kernel or a container has no keyrings for us, there is nothing to inherit either.
    """
    code = -_keyctl(_JOIN_SESSION_KEYRING, 0)
    if code > 0 and code not in (errno.ENOSYS, errno.EPERM):
        log.warning("no session keyring of its own for a worker: %s", os.strerror(code))


def session() -> int:
    """The id of this thread's session keyring; negative where there is none."""
    return _keyctl(_GET_KEYRING_ID, _SESSION)


def _keyctl(operation: int, argument: int) -> int:
    number = _KEYCTL.get(os.uname().machine) if sys.platform == "linux" and sys.maxsize > 2**32 else None
    if number is None:
        return -errno.ENOSYS
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(*(ctypes.c_long(each) for each in (number, operation, argument, 0))))
    return result if result >= 0 else -ctypes.get_errno()
