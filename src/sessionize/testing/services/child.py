"""Becomes another program that ends when its parent does: `python child.py PARENT PROGRAM ARGUMENT...`.

A server started by a test would outlive a test process that is killed. Linux sends a signal to a child whose parent is
gone; asking for that takes a call in the child itself, before the program is loaded. Runs without the package.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> None:
    """Never returns. parent: the process id to depend on."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() == parent:  # else it was gone before the call
        os.execvp(command[0], command)
    sys.exit(1)


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
