"""Name processes so that a name is never used twice, and find the folder that the workers of one host share.

Invariant: a process identity holds the start time, so a later process with the same number has another one.
"""

import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "ekiben-"


def process_identity(pid: int) -> str:
    """Return `PID-START` (start in clock ticks since boot), with START 0 if there is no such process."""
    with suppress(OSError, IndexError):
        # The command name, in parentheses, may hold spaces.
        return f"{pid}-{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
    return f"{pid}-0"


def is_alive(identity: str) -> bool:
    """Return whether the process of this identity still runs."""
    pid, _, start = identity.partition("-")
    return start != "0" and process_identity(int(pid)) == identity and not _is_zombie(int(pid))


def shared_folder(host: int) -> Path | None:
    """Return the folder of the workers of this host process, which it makes if need be, or None if it cannot.

    Only this user can write to it. Folders of hosts that have ended are removed.
    """
    namespace = Path("/proc/self/ns/pid").readlink().name.strip("pid:[]") if Path("/proc/self/ns/pid").exists() else "0"
    prefix = f"{PREFIX}{os.geteuid()}-{namespace}-"
    try:
        folder = Path(tempfile.gettempdir()) / f"{prefix}{process_identity(host)}"
        for other in folder.parent.glob(f"{prefix}*-*"):
            if not is_alive(other.name.removeprefix(prefix)):
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None
    is_private = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return folder if is_private else None


def _is_zombie(pid: int) -> bool:
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    return True
