"""The data file of a bundle: large weights that are hashed in a stream and mapped into memory, never read as a whole.

Invariant: the tensors are views of the inode that was hashed, whatever takes its name later. A mapping follows a file
that is written in place, so `check_unchanged` compares the state of the inode, and of its name, with those at the time
of hashing; whoever publishes bundles renames complete folders and writes no file again.
"""

import hashlib
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from service.data_files.external import ExternalTensor

Array = npt.NDArray[Any]
# Device, inode, size, and the times of the last change of content and of the inode.
Identity = tuple[int, int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A mapped file and its sha256. `replaced` holds other values for some tensors: the file is never written."""

    path: Path
    sha256: str
    content: memoryview
    identity: Identity
    replaced: Mapping[str, Array] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.content)

    def values(self, tensor: ExternalTensor) -> Array:
        """Return the values of a tensor; unless they were replaced, as a view of the mapped file."""
        if tensor.name in self.replaced:
            return self.replaced[tensor.name]
        dtype = np.dtype(tensor.dtype).newbyteorder("<")
        return np.frombuffer(self.content, dtype, tensor.size // dtype.itemsize, tensor.offset).reshape(tensor.dims)

    def with_values(self, tensor: ExternalTensor, values: Array) -> "DataFile":
        """Return the same file in which a tensor counts as having these values, of the same shape and type."""
        changed = np.ascontiguousarray(values, tensor.dtype).reshape(tensor.dims)
        return replace(self, replaced={**self.replaced, tensor.name: changed})

    def check_unchanged(self) -> None:
        """Raise ValueError if the file was written, removed or replaced since it was hashed."""
        try:
            now = _identity(self.path.lstat())
        except OSError as error:
            raise ValueError(f"{self.path.name} cannot be found any more: {error.strerror}") from error
        if now != self.identity:
            raise ValueError(f"{self.path.name} was changed while it was being loaded")


def open_data_file(path: Path, *, max_bytes: int) -> DataFile:
    """Hash and map a regular file that is not a link. Raises OSError, or ValueError if it is empty or too large."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path.name} is not a regular file")
        if not 0 < status.st_size <= max_bytes:
            raise ValueError(f"{path.name} has {status.st_size} bytes, expected 1 to {max_bytes}")
        # A mapping that is only read is not charged to the memory limit of the process.
        content = memoryview(mmap.mmap(file.fileno(), status.st_size, access=mmap.ACCESS_READ))
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        data = DataFile(path=path, sha256=digest, content=content, identity=_identity(status))
    data.check_unchanged()
    return data


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
