"""Becomes another program that ends with its parent: `python child.py PARENT PROGRAM ARGUMENT...`.

A server started by a test would outlive a killed test process. Linux signals a child whose parent has ended if the
child requests it with a call before the program is loaded. This file runs without the package.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Never returns. parent: the process id to depend on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:  # otherwise the parent ended before the call
        os.execvp(command[0], command)
    sys.exit(1)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
