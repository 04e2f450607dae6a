"""The table of all models has one row per model."""

from pathlib import Path

import pytest

from export.bundle.writer import write_bundle
from export.table import HEADER, main, row
from tests.export.conftest import Candidates, Proofs


@pytest.fixture
def bundles(candidates: Candidates, proofs: Proofs, tmp_path: Path) -> Path:
    for name in ("tiny-lstm", "tiny-gan"):
        write_bundle(candidates(name), proofs(name), tmp_path)
    return tmp_path


def test_every_model_has_a_row_with_its_metric_and_parity(bundles: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(bundles)]) == 0
    header, rule, gan, lstm = capsys.readouterr().out.splitlines()
    assert header == f"| {' | '.join(HEADER)} |"
    assert set(rule) <= set("| -")
    assert gan.startswith("| tiny-gan |")
    assert "| 87.50% accuracy on tiny |" in lstm
    assert header.count("|") == gan.count("|") == lstm.count("|")


def test_the_difference_is_the_largest_of_any_float_output(
    candidates: Candidates, proofs: Proofs, tmp_path: Path
) -> None:
    manifest = write_bundle(candidates("tiny-gan"), proofs("tiny-gan"), tmp_path).manifest
    assert f"{proofs('tiny-gan').parity.largest('samples').max_difference:.1e}" in row(manifest)


def test_the_metric_of_a_language_model_is_nats_per_character(candidates: Candidates) -> None:
    manifest = candidates("tiny-language").manifest
    assert f"{manifest.provenance.metrics['test_nats_per_character']:.3f} nats per character on tiny" in row(manifest)


def test_the_metric_of_an_image_generator_is_its_coverage(candidates: Candidates) -> None:
    manifest = candidates("tiny-gan").manifest
    metrics = {"test_precision": 1.0, "test_coverage": 0.0220}
    provenance = manifest.provenance.model_copy(update={"metrics": metrics})
    assert "0.022 coverage on tiny" in row(manifest.model_copy(update={"provenance": provenance}))


def test_a_metric_of_an_older_bundle_stands_alone(candidates: Candidates) -> None:
    manifest = candidates("tiny-lstm").manifest
    provenance = manifest.provenance.model_copy(update={"dataset": ""})
    assert "87.50% accuracy" in row(manifest.model_copy(update={"provenance": provenance}))
