"""Tell a shortage of the machine, which passes, from a fault of the file that was being read.

Invariant: a shortage says nothing about a bundle, so the same bytes are tried again; any other error is a fault.
"""

import errno
from collections.abc import Iterator

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
MEMORY_MESSAGES = (
    "bad_alloc",
    "Failed to allocate memory",
    "Cannot allocate memory",
    # The bound of a session on a GPU (onnxruntime's bfc_arena.cc).
    "is smaller than requested bytes of",
    # cudaErrorMemoryAllocation, CUBLAS_STATUS_ALLOC_FAILED (its cuda_call.cc) and the states of cuDNN 9.
    "CUDA failure 2:",
    "CUBLAS failure 3:",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
)
THREAD_MESSAGES = ("can't start new thread", "Resource temporarily unavailable")


class ShortageError(RuntimeError):
    """The machine lacked something while a version was loaded; the message names what the process was doing."""


def is_shortage(error: BaseException | None) -> bool:
    """Return whether this error, or one that it was raised from, is a shortage."""
    return is_out_of_memory(error) or any(
        isinstance(one, ShortageError)
        or (isinstance(one, OSError) and one.errno in ERRNOS)
        or (isinstance(one, RuntimeError) and any(text in str(one) for text in THREAD_MESSAGES))
        for one in _causes(error)
    )


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether this error, or one that it was raised from, is a refused allocation."""
    return any(
        isinstance(one, MemoryError) or any(text in str(one) for text in MEMORY_MESSAGES) for one in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__
