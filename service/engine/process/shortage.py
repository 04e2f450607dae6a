"""Tell a shortage of the machine, which passes, from a fault of the file that was being read.

Invariant: a shortage says nothing about a bundle, so the same bytes are tried again; any other error is a fault.
"""

import errno

ERRNOS = frozenset(
    {
        errno.EAGAIN,  # no more processes or threads
        errno.EINTR,
        errno.EIO,  # an interrupted network file system, as the next two
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
    }
)
# What native libraries and threading say instead of raising an OSError with a number.
MEMORY_MESSAGES = ("bad_alloc", "Failed to allocate memory", "Cannot allocate memory")
THREAD_MESSAGES = ("can't start new thread", "Resource temporarily unavailable")


class ShortageError(RuntimeError):
    """The machine lacked something while a version was loaded; the message names what the process was doing."""


def is_shortage(error: BaseException | None) -> bool:
    """Return whether this error, or one that it was raised from, is a shortage."""
    while error is not None:
        if isinstance(error, ShortageError) or is_out_of_memory(error):
            return True
        if isinstance(error, OSError) and error.errno in ERRNOS:
            return True
        if isinstance(error, RuntimeError) and any(text in str(error) for text in THREAD_MESSAGES):
            return True
        error = error.__cause__
    return False


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether this error, or one that it was raised from, is a refused allocation."""
    while error is not None:
        if isinstance(error, MemoryError) or any(text in str(error) for text in MEMORY_MESSAGES):
            return True
        error = error.__cause__
    return False
