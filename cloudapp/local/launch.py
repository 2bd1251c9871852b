"""Become another program, one that does not outlive the process that asked for it.

Run as a file, with the parent's pid, the signal that the kernel sends when that parent dies, and
a user name (or -), then the command. The signal is set here and not between fork and exec of the
parent, because the parent has threads; and after changing the user, because the kernel forgets
the signal on such a change. On systems other than Linux the program may outlive its parent.
"""

import ctypes
import os
import pwd
import sys
from collections.abc import Sequence

PR_SET_PDEATHSIG = 1


def become(user: str) -> None:
    """Give up root and be `user` from now on, in no group but the user's own ones."""
    entry = pwd.getpwnam(user)
    os.initgroups(user, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def main(arguments: Sequence[str]) -> None:
    """Do what the module's text says; ends by being the command, or with an error."""
    parent, death_signal, user, *command = arguments
    if user != "-":
        become(user)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != int(parent):
            sys.exit("launch: the parent died before the program began")
    os.execvp(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
