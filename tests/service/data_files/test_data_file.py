"""A data file is hashed as it is mapped, and a change after that is noticed."""

import hashlib
import os
import resource
from pathlib import Path

import numpy as np
import pytest

from service.data_files.data_file import open_data_file
from service.data_files.external import ExternalTensor

VALUES = np.arange(2048, dtype=np.float32)
TENSOR = ExternalTensor("w", "float32", (32, 64), 0, 8192, "model.onnx.data")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx.data"
    path.write_bytes(VALUES.tobytes())
    return path


def test_values_are_views_of_the_mapped_file(path: Path) -> None:
    data = open_data_file(path, max_bytes=8192)
    assert data.sha256 == hashlib.sha256(VALUES.tobytes()).hexdigest()
    assert data.size == 8192
    values = data.values(TENSOR)
    np.testing.assert_array_equal(values, VALUES.reshape(32, 64))
    assert not values.flags.owndata
    assert not values.flags.writeable


def test_replaced_values_leave_the_file_alone(path: Path) -> None:
    data = open_data_file(path, max_bytes=8192)
    changed = data.with_values(TENSOR, -data.values(TENSOR))
    np.testing.assert_array_equal(changed.values(TENSOR), -VALUES.reshape(32, 64))
    np.testing.assert_array_equal(data.values(TENSOR), VALUES.reshape(32, 64))
    with pytest.raises(ValueError, match="reshape"):
        data.with_values(TENSOR, np.zeros(3))


def test_a_file_that_took_its_name_is_noticed_and_not_read(path: Path) -> None:
    data = open_data_file(path, max_bytes=8192)
    other = path.with_name("other")
    other.write_bytes(b"\1" * 8192)
    other.rename(path)
    with pytest.raises(ValueError, match="changed while it was being loaded"):
        data.check_unchanged()
    np.testing.assert_array_equal(data.values(TENSOR), VALUES.reshape(32, 64))


def test_a_file_that_is_written_or_removed_is_noticed(path: Path) -> None:
    data = open_data_file(path, max_bytes=8192)
    with path.open("r+b") as file:
        file.write(b"\1")
    os.utime(path, ns=(data.identity[3], data.identity[3]))
    with pytest.raises(ValueError, match="changed while it was being loaded"):
        data.check_unchanged()
    path.unlink()
    with pytest.raises(ValueError, match="cannot be found any more"):
        data.check_unchanged()


def test_only_a_regular_file_of_the_expected_size_is_mapped(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 8192 bytes, expected 1 to 8191"):
        open_data_file(path, max_bytes=8191)
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(ValueError, match="has 0 bytes"):
        open_data_file(empty, max_bytes=8192)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(OSError, match="symbolic links"):
        open_data_file(link, max_bytes=8192)
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(ValueError, match="not a regular file"):
        open_data_file(fifo, max_bytes=8192)
    with pytest.raises(IsADirectoryError):
        open_data_file(tmp_path, max_bytes=8192)


def test_a_mapping_is_not_charged_to_the_memory_limit(tmp_path: Path) -> None:
    """The kernel counts private pages that may be written against RLIMIT_DATA, which the checks of a load lower."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 64 << 20)

    def charged_bytes() -> int:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["VmData"].split()[0]) << 10

    assert resource.RLIMIT_DATA
    before = charged_bytes()
    data = open_data_file(path, max_bytes=64 << 20)
    assert data.size == 64 << 20
    assert charged_bytes() - before < 16 << 20
