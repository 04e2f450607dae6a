"""What passes by itself is told from what does not."""

import errno

import pytest

from service.engine.process.shortage import ShortageError, is_out_of_memory, is_shortage
from service.errors import BundleError


@pytest.mark.parametrize(
    "number",
    [
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EAGAIN,
        errno.EINTR,
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
    ],
)
def test_a_lack_of_the_machine_is_a_shortage(number: int) -> None:
    assert is_shortage(OSError(number, "x"))
    assert not is_out_of_memory(OSError(number, "x"))


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.ENOTDIR, errno.EISDIR, errno.ELOOP])
def test_a_file_that_is_not_as_it_should_be_is_a_fault(number: int) -> None:
    assert not is_shortage(OSError(number, "x"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Failed to allocate memory for requested buffer of size 8589934592"),
        RuntimeError("mmap: Cannot allocate memory"),
    ],
)
def test_a_refused_allocation_is_a_shortage_of_memory(error: Exception) -> None:
    assert is_out_of_memory(error)
    assert is_shortage(error)


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), ShortageError("x")])
def test_other_shortages(error: Exception) -> None:
    assert is_shortage(error)
    assert not is_out_of_memory(error)


def test_the_cause_counts() -> None:
    error = BundleError("m/1: cannot read manifest.json")
    assert not is_shortage(error)
    middle = ValueError("x")
    middle.__cause__ = OSError(errno.EMFILE, "x")
    error.__cause__ = middle
    assert is_shortage(error)
    assert not is_out_of_memory(error)
    middle.__cause__ = MemoryError()
    assert is_out_of_memory(error)


def test_other_errors_are_faults() -> None:
    for error in (ValueError("x"), BundleError("x"), RuntimeError("x"), None):
        assert not is_shortage(error)
        assert not is_out_of_memory(error)
