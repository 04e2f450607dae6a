"""One snapshot of an Iceberg table, read from its metadata without a catalog.

Needs the package `pyiceberg` (dependency group `tables`).
"""

import functools
import re
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from service.scoring.job import ScoringError

METADATA = re.compile(r"v?(\d+)(?:-[^/]*)?(?:\.gz)?\.metadata\.json(?:\.gz)?")


@dataclass(frozen=True, kw_only=True)
class IcebergSnapshot:
    """`tasks` holds what pyiceberg needs to read each data file, by its place."""

    snapshot: int
    location: str
    schema: pa.Schema
    tasks: dict[str, Any]
    table: Any
    projection: Any


def current_metadata(names: list[str], hint: str | None, folder: str) -> str:
    """The name of the metadata file to read: what the hint says, else the highest number. Raises ScoringError."""
    numbered = {name: int(match[1]) for name in names if (match := METADATA.fullmatch(name))}
    if hint is not None:
        candidates = [name for name in (hint, f"v{hint}.metadata.json", f"{hint}.metadata.json") if name in numbered]
    else:
        candidates = [name for name, number in numbered.items() if number == max(numbered.values())]
    if len(candidates) != 1:
        found = ", ".join(sorted(candidates)) or f"none that version-hint.text ({hint}) names"
        raise ScoringError(
            f"--input {folder}: cannot tell the current metadata file of the Iceberg table ({found}): "
            "pass that file as --input"
        )
    return candidates[0]


@functools.lru_cache(maxsize=4)
def open_iceberg(metadata: str, snapshot: int | None) -> IcebergSnapshot:
    """Read a snapshot, by default the current one. Raises ScoringError."""
    try:
        from pyiceberg.exceptions import NoSuchTableError  # noqa: PLC0415 - an extra
        from pyiceberg.io.pyarrow import schema_to_pyarrow  # noqa: PLC0415
        from pyiceberg.table import StaticTable  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ScoringError(
            f"--input {metadata}: an Iceberg table needs the dependency group `tables`: {error}"
        ) from error
    try:
        table = StaticTable.from_metadata(metadata)
        current = table.current_snapshot() if snapshot is None else table.snapshot_by_id(snapshot)
        if current is None and snapshot is not None:
            raise ScoringError(f"--input {metadata}: the Iceberg table has no snapshot {snapshot}")
        # The schema may have changed since the last rows were written; an earlier snapshot has the schema of its time.
        is_earlier = snapshot not in {None, table.metadata.current_snapshot_id}
        scan = table.scan(snapshot_id=snapshot if is_earlier else None)
        tasks = {task.file.file_path.removeprefix("file://"): task for task in scan.plan_files()} if current else {}
        projection = scan.projection()
        schema = schema_to_pyarrow(projection, include_field_ids=False)
    except (NoSuchTableError, OSError, ValueError, NotImplementedError) as error:
        raise ScoringError(f"--input {metadata}: the Iceberg table cannot be read: {error}") from error
    return IcebergSnapshot(
        snapshot=current.snapshot_id if current else 0,
        location=table.location(),
        schema=schema,
        tasks=dict(sorted(tasks.items())),
        table=table,
        projection=projection,
    )
