"""`python -m export.table bundles`: a Markdown table of all models with their measured metric and parity."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.bundle import current_version, open_bundle
from service.contract.tensors import FLOATS
from service.manifest import MODEL, Manifest

HEADER = ("model", "what it is", "task", "on the test split", "reference − ONNX", "allowed", "in a batch", "size")
# The table shows the first of these metrics that the model has.
METRICS = {
    "test_nats_per_character": "{:.3f} nats per character",
    "test_accuracy": "{:.2%} accuracy",
    "test_mean_absolute_error": "{:.4g} mean absolute error",
    "test_nats_per_token": "{:.3f} nats per token",
    "test_coverage": "{:.3f} coverage",
}


def manifests(bundles: Path) -> list[Manifest]:
    """The current manifest of every model, sorted by name. Raises BundleError."""
    folders = sorted(path.parent for path in bundles.glob("[!.]*/current"))
    return [open_bundle(folder / current_version(folder)).manifest for folder in folders]


def markdown(manifests: Iterable[Manifest]) -> str:
    """The table, one line per model."""
    rows = [HEADER, ("---",) * len(HEADER), *map(row, manifests)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def row(manifest: Manifest) -> tuple[str, ...]:
    """The cells of one model, in the order of HEADER. The difference is the largest of any float output."""
    floats = [spec.name for spec in manifest.outputs if spec.dtype in FLOATS] or list(manifest.tolerance)
    largest = max((manifest.tolerance[name] for name in floats), key=lambda tolerance: tolerance.measured)
    invariance = manifest.invariance
    return (
        manifest.name,
        manifest.summary,
        manifest.task,
        _metric(manifest),
        f"{largest.measured:.1e}",
        f"{largest.atol:.0e} + {largest.rtol:.0e} × value",
        "same bits" if invariance.level == "bitwise" else f"± {invariance.measured:.1e}",
        f"{manifest.files[MODEL].bytes / 1e6:.2f} MB",
    )


def _metric(manifest: Manifest) -> str:
    """The model's headline metric as training measured it, with its data set, or an empty string.

    The metric of an image generator is coverage: few images, repeated, have a high precision.
    """
    measured, dataset = manifest.provenance.metrics, manifest.provenance.dataset
    metric = next((text.format(measured[name]) for name, text in METRICS.items() if name in measured), "")
    return f"{metric} on {dataset}" if metric and dataset else metric


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table. Exit status: 0 done, 2 wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m export.table", description="The table of all models.")
    parser.add_argument("bundles", type=Path, nargs="?", default=Path("bundles"))
    print(markdown(manifests(parser.parse_args(argv).bundles)), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
