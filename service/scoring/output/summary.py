"""The result of a job as one JSON document and one histogram, from the job, the manifest and the shard records."""

import io
from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from PIL import Image, ImageDraw

from service.drift.distributions import Distributions
from service.manifest import Manifest
from service.scoring.drift.report import drift_report
from service.scoring.job import Job
from service.scoring.output.ledger import Record

WIDTH, HEIGHT, MARGIN = 640, 320, 40
AXIS_COLOR, BAR_COLOR, BACKGROUND_COLOR = (40, 40, 40), (61, 118, 184), (255, 255, 255)


def summarize(
    job: Job,
    manifest: Manifest,
    files: int,
    records: Iterable[Record],
    passed_over: Mapping[str, int],
    *,
    distributions: Distributions | None = None,
) -> dict[str, Any]:
    """Counts of rows, labels and confidences, their drift, and the model with its parity and invariance."""
    shards = list(records)
    labels: tuple[str, ...] = manifest.labels
    counts = [sum(column) for column in zip(*(record.labels for record in shards), strict=True)]
    confidence = [sum(column) for column in zip(*(record.confidence for record in shards), strict=True)]
    scored, rejected = sum(record.scored for record in shards), sum(record.rejected for record in shards)
    summary = {
        "model": manifest.name,
        "version": manifest.version,
        "files": files,
        "passed_over": dict(sorted(passed_over.items())),
        "shards": len(shards),
        "rows": scored + rejected,
        "scored": scored,
        "rejected": rejected,
        "filtered": sum(record.filtered for record in shards),
        "labels": dict(zip(labels, counts, strict=True)) if counts else dict.fromkeys(labels, 0),
        "confidence": confidence,
        "parity": {name: tolerance.model_dump(mode="json") for name, tolerance in manifest.tolerance.items()},
        "invariance": manifest.invariance.model_dump(mode="json"),
        "device": job.device,
        "runtime": job.runtime,
        "options": {
            "columns": job.columns,
            "id": job.id_column,
            "keep": list(job.keep),
            **({"partition_by": list(job.partition_by)} if job.partition_by else {}),
            **({} if job.append_to is None else {"append_to": job.table_place}),
            **_selection(job),
            **job.request,
        },
    }
    return {**summary, **drift_report(manifest, distributions, summary, (record.drift for record in shards))}


def _selection(job: Job) -> dict[str, Any]:
    where = {"where": job.where} if job.where is not None else {}
    sample = {} if job.sample is None else {"sample": job.sample, "sample_seed": job.sample_seed}
    return {**where, **sample}


def encode(summary: Mapping[str, Any]) -> bytes:
    return orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n"


def confidence_histogram(summary: Mapping[str, Any]) -> bytes:
    """A PNG of the number of rows in each interval of confidence."""
    counts: list[int] = summary["confidence"]
    picture = Image.new("RGB", (WIDTH, HEIGHT), BACKGROUND_COLOR)
    draw = ImageDraw.Draw(picture)
    floor, highest = HEIGHT - MARGIN, max(counts, default=0)
    step = (WIDTH - 2 * MARGIN) / max(len(counts), 1)
    for i, count in enumerate(counts):
        top = floor - round((floor - MARGIN) * count / max(highest, 1))
        left = MARGIN + i * step
        draw.rectangle((left + 1, top, left + step - 1, floor), fill=BAR_COLOR if count else BACKGROUND_COLOR)
    draw.line((MARGIN, floor, WIDTH - MARGIN, floor), fill=AXIS_COLOR)
    for share in range(0, 11, 2):
        x = MARGIN + (WIDTH - 2 * MARGIN) * share / 10
        draw.line((x, floor, x, floor + 4), fill=AXIS_COLOR)
        draw.text((x, floor + 6), f"{share / 10:g}", fill=AXIS_COLOR, anchor="ma")
    title = (
        f"{summary['model']} {summary['version']}: confidence of {summary['scored']:,} rows, largest bar {highest:,}"
    )
    draw.text((WIDTH / 2, MARGIN / 2), title, fill=AXIS_COLOR, anchor="mm")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
