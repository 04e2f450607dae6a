"""The items with which a model from elsewhere is tried: a .safetensors or .npz file with the payload of its reader.

An array is called as the reader calls it (`images`, `series` with `lengths`, `texts`, `numbers`, `categories`, or the
names of the tensors); the only array of items may have any name. Targets are `targets`, `labels` or `y`, if there are
any. Items of other sizes of a free axis are further groups of arrays: `images.1`, `targets.1`, `images.2`.
"""

import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from export.source import Array

MIN_ITEMS = 8
TARGETS = ("targets", "target", "labels", "label", "y")
# Names under which people keep the only array of items.
OBVIOUS = ("x", "X", "inputs", "input", "data", "items", "images", "image", "series", "text", "texts")
# Of a .npz file: no file holds more than what the machine could read.
MAX_BYTES = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
GROUP = re.compile(r"(.+)\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Groups of items; the items of a group have the same sizes. Each group has the same names."""

    path: Path
    groups: tuple[dict[str, Array], ...]
    targets: tuple[Array, ...]

    @property
    def names(self) -> list[str]:
        return list(self.groups[0])


def read_arrays(path: Path) -> dict[str, Array]:
    """All arrays of a file. Raises ValueError, one sentence."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if path.suffix == ".npz":
            return _read_npz(path)
        if path.suffix == ".safetensors":
            return dict(load_file(path))
    except (SafetensorError, OSError, EOFError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    raise ValueError(f"{path} is no .safetensors or .npz file")


def _read_npz(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file in the byte order of the machine. Raises ValueError before it reads a larger file."""
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member.file_size for member in archive.infolist()}
    if others := [name for name in members if not name.endswith(".npy")]:
        raise ValueError(f"{path} holds {others[0]!r}, expected arrays alone, as numpy.savez writes them")
    if (size := sum(members.values())) > MAX_BYTES:
        raise ValueError(f"{path} holds {size >> 30} GiB of arrays, this machine has {MAX_BYTES >> 30} GiB of memory")
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                array = file[name]
            except (ValueError, MemoryError) as error:
                # numpy refuses arrays of Python objects, which are pickles.
                if "allow_pickle" in str(error):
                    raise ValueError(
                        f"{path} holds Python objects in {name!r}; save numbers, or texts as an array of dtype str"
                    ) from error
                raise ValueError(f"{path}: {name!r} cannot be read: {error}") from error
            arrays[name] = array.astype(array.dtype.newbyteorder("="), copy=False)
    return arrays


def read_examples(path: Path, expected: Mapping[str, bool] | None) -> Examples:
    """Read examples of a reader whose payload has the arrays `wanted` (True if required), or any arrays if None.

    Raises ValueError, one sentence that names the file and the array.
    """
    groups, targets = [], []
    for number, arrays in sorted(_grouped(read_arrays(path)).items()):
        target = next((arrays.pop(name) for name in TARGETS if name in arrays and name not in (expected or {})), None)
        # Scalars beside the items, such as the mean of the training data, are no items.
        items = {name: array for name, array in arrays.items() if array.ndim}
        groups.append(_renamed(items, expected, path) if expected is not None else items)
        if target is not None:
            targets.append(target)
        _check_group(groups[-1], target, path, number)
    if (empty := next((i for i, group in enumerate(groups) if not all(map(len, group.values()))), None)) and groups[0]:
        raise ValueError(f"{path} holds no items in group {empty}")
    if not groups or not groups[0]:
        raise ValueError(f"{path} holds no items")
    if any(set(group) != set(groups[0]) for group in groups):
        raise ValueError(f"the groups of {path} have different names: {', '.join(sorted(groups[0]))} in the first")
    if targets and len(targets) < len(groups):
        raise ValueError(f"{path} has targets for {len(targets)} of {len(groups)} groups")
    count = sum(len(next(iter(group.values()))) for group in groups)
    if count < MIN_ITEMS:
        raise ValueError(f"{path} holds {count} items, expected {MIN_ITEMS} or more that differ, better hundreds")
    return Examples(path=path, groups=tuple(groups), targets=tuple(targets))


def _grouped(arrays: Mapping[str, Array]) -> dict[int, dict[str, Array]]:
    groups: dict[int, dict[str, Array]] = {}
    for key, array in arrays.items():
        match = GROUP.fullmatch(key)
        name, number = (match[1], int(match[2])) if match else (key, 0)
        groups.setdefault(number, {})[name] = array
    return groups


def _renamed(arrays: dict[str, Array], expected: Mapping[str, bool], path: Path) -> dict[str, Array]:
    """The wanted arrays by their names; a single required array may have an obvious name, or be the only one."""
    required = [name for name, is_required in expected.items() if is_required]
    named = {name: arrays[name] for name in expected if name in arrays}
    absent = [name for name in required if name not in named]
    if len(absent) == 1:
        others = [name for name in arrays if name not in expected]
        obvious = [name for name in others if name in OBVIOUS]
        candidates = others if len(others) == 1 else obvious
        if len(candidates) == 1:
            named[absent[0]] = arrays[candidates[0]]
            absent = []
    if absent:
        raise ValueError(f"{path} lacks {' and '.join(absent)}; it holds {', '.join(sorted(arrays)) or 'nothing'}")
    return {name: named[name] for name in expected if name in named}


def _check_group(arrays: Mapping[str, Array], target: Array | None, path: Path, number: int) -> None:
    counts = {name: len(array) for name, array in arrays.items()}
    if target is not None:
        counts["targets"] = len(target)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise ValueError(f"{path} holds {listed} in group {number}; expected one for each item")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            item = int(np.argwhere(~np.isfinite(array))[0][0])
            raise ValueError(f"{path}: item {item} of {name} has a value that is not finite")
