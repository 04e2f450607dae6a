"""A run folder becomes a bundle; a folder without a run raises."""

from pathlib import Path

import pytest

from export.errors import ExportError
from export.pipeline import export_run
from export.process import NUM_STAGES
from service.bundle import open_bundle
from tests.export.conftest import Runs, registered_run
from tests.export.tiny import RECIPES
from training.checkpoint import RunError
from training.models import RECIPES as REGISTRY


@pytest.fixture(autouse=True)
def tiny_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "tiny-rnn", RECIPES["tiny-rnn"])


def test_exporting_a_run_twice_gives_the_same_bundle(runs: Runs, tmp_path: Path) -> None:
    folder, stages = runs("tiny-rnn").folder, list[str]()
    first = export_run(folder, tmp_path, stages.append)
    assert export_run(folder, tmp_path, lambda stage: None) == first
    assert open_bundle(tmp_path / "tiny-rnn" / first.version).manifest == first
    assert len(stages) == NUM_STAGES
    assert (stages[0], stages[-1]) == ("load", "bundle")


def test_a_folder_without_a_run_raises_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="nothing: there is no checkpoint"):
        export_run(tmp_path / "nothing", tmp_path / "bundles", lambda stage: None)
    assert not (tmp_path / "bundles").exists()


def test_a_variant_stands_beside_its_parent_or_is_refused(tmp_path: Path) -> None:
    folder, bundles, stages = registered_run(tmp_path / "random-digits"), tmp_path / "bundles", list[str]()
    parent = export_run(folder, bundles, lambda stage: None)
    variant = export_run(folder, bundles, stages.append, precision="int8")
    assert stages.count("parity") == 1, "the parent is not proven again"
    assert variant.precision is not None
    assert (variant.precision.parent, variant.invariance.level) == (f"random-digits/{parent.version}", "bitwise")
    bundle = open_bundle(bundles / "random-digits-int8" / variant.version)
    assert bundle.manifest == variant
    assert bundle.model_bytes < 0.4 * open_bundle(bundles / "random-digits" / parent.version).model_bytes
    assert (
        "The weights are those of `random-digits/"
        in (bundles / "random-digits-int8" / variant.version / "card.md").read_text()
    )
    products = export_run(folder, bundles, lambda stage: None, precision="tf32")
    folders = [bundles / "random-digits" / parent.version, bundles / "random-digits-tf32" / products.version]
    assert products.precision is not None
    assert (products.allows_tf32, products.precision.score, parent.allows_tf32) == (True, 1.0, False)
    assert open_bundle(folders[1]).model == open_bundle(folders[0]).model
    assert "A GPU computes its products in TF32, a CPU in float32." in (folders[1] / "card.md").read_text()
    with pytest.raises(ExportError, match="precision: in int4, accuracy on 40 examples is"):
        export_run(folder, bundles, lambda stage: None, precision="int4")
    written = {"random-digits", "random-digits-int8", "random-digits-tf32"}
    assert {path.name for path in bundles.iterdir()} == written
