"""The log of Spark's streaming sink: which files of a folder belong to its output.

A query that failed, and wrote a batch again, leaves the files of the first attempt in the folder. The file `N` of
`_spark_metadata` lists the files of batch N, and `N.compact` those of all batches until N: a line with the version of
the format, then one JSON object a line (FileStreamSinkLog of Spark).
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from urllib.parse import unquote

import pyarrow.fs as pafs

from service.scoring.job import ScoringError

LOG_FOLDER = "_spark_metadata"
VERSION = "v1"
BATCH = re.compile(r"(\d+)(\.compact)?")


class SinkLog:
    """The files that the log of a folder names. Raises ScoringError if the log is incomplete or cannot be read."""

    def __init__(self, system: pafs.FileSystem, folder: str) -> None:
        self._paths = defaultdict[str, set[str]](set)  # by the last part of each
        log = f"{folder}/{LOG_FOLDER}"
        try:
            for name in _batches([info.base_name for info in system.get_file_info(pafs.FileSelector(log))]):
                with system.open_input_stream(f"{log}/{name}") as file:
                    self._add(file.read().decode())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScoringError(
                f"--input {folder}: {LOG_FOLDER} is no log of a streaming query of Spark: {error}"
            ) from error

    def _add(self, batch: str) -> None:
        version, *lines = batch.splitlines()
        if version != VERSION:
            raise ValueError(f"expected the version {VERSION}, got {version[:20]!r}")
        for entry in map(json.loads, lines):
            path = unquote(entry["path"])
            paths = self._paths[path.rpartition("/")[2]]
            if entry["action"] == "delete":
                paths.discard(path)
            else:
                paths.add(path)

    def holds(self, name: str) -> bool:
        """Whether the output has this file, which is named relative to the folder; that may have been moved."""
        return any(path.endswith(f"/{name}") for path in self._paths.get(name.rpartition("/")[2], ()))


def _batches(names: Sequence[str]) -> list[str]:
    """The files of a log that together list every batch, in order. Raises ValueError if one is not there."""
    found = {match[0]: int(match[1]) for match in map(BATCH.fullmatch, names) if match}
    compact = sorted((name for name in found if name.endswith(".compact")), key=found.__getitem__)[-1:]
    first = found[compact[0]] + 1 if compact else 0
    following = [str(number) for number in range(first, max(found.values(), default=-1) + 1)]
    if absent := [name for name in following if name not in found]:
        raise ValueError(f"batch {absent[0]} is not there")
    return [*compact, *following]
