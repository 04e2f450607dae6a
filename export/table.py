"""`python -m export.table bundles`: every model with its measured metric and parity, as a Markdown table."""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

from service.bundle import current_version, open_bundle
from service.manifest import MODEL, Manifest

HEADER = ("model", "what it is", "task", "on the test split", "PyTorch − ONNX", "allowed", "in a batch", "size")
METRICS = {  # the first that a model has
    "test_nats_per_character": "{:.3f} nats per character",
    "test_accuracy": "{:.2%} accuracy",
    "test_precision": "{:.3f} precision",
}


def manifests(bundles: Path) -> list[Manifest]:
    """The current manifest of every model, by name. Raises BundleError."""
    homes = sorted(path.parent for path in bundles.glob("[!.]*/current"))
    return [open_bundle(home / current_version(home)).manifest for home in homes]


def markdown(found: Iterable[Manifest]) -> str:
    """The table, a line for each model."""
    rows = [HEADER, ("---",) * len(HEADER), *map(row, found)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def row(manifest: Manifest) -> tuple[str, ...]:
    """A model's cells, as HEADER names them; the difference is that of the float output that differs most."""
    worst = max(
        (manifest.tolerance[spec.name] for spec in manifest.outputs if spec.dtype == "float32"),
        key=lambda tolerance: tolerance.measured,
    )
    invariance = manifest.invariance
    return (
        manifest.name,
        manifest.summary,
        manifest.task,
        metric(manifest),
        f"{worst.measured:.1e}",
        f"{worst.atol:.0e} + {worst.rtol:.0e} × value",
        "same bits" if invariance.level == "bitwise" else f"± {invariance.measured:.1e}",
        f"{manifest.files[MODEL].bytes / 1e6:.2f} MB",
    )


def metric(manifest: Manifest) -> str:
    """The one number that says how good the model is, as training measured it."""
    measured = manifest.provenance.metrics
    return next((text.format(measured[name]) for name, text in METRICS.items() if name in measured), "")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = argparse.ArgumentParser(prog="python -m export.table", description="The table of all models.")
    arguments.add_argument("bundles", type=Path, nargs="?", default=Path("bundles"))
    print(markdown(manifests(arguments.parse_args(argv).bundles)), end="")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
