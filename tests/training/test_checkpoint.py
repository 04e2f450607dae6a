import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.checkpoint import RunError, load_run, read_snapshot, write_file, write_snapshot
from training.families import FAMILIES

Train = Callable[..., Path]


@pytest.fixture
def folder(train: Train, tmp_path: Path) -> Path:
    """A copy of a finished run, to be broken."""
    return Path(shutil.copytree(train("tiny-images"), tmp_path / "run"))


@pytest.mark.parametrize("name", ["tiny-images", "tiny-tagger", "tiny-language", "tiny-gan"])
def test_a_run_comes_back_whole(train: Train, name: str) -> None:
    run = load_run(train(name), RECIPES)
    data = RECIPES[name].load(None)
    assert run.recipe is RECIPES[name]
    assert not run.model.training
    assert run.checkpoint.labels == data.labels
    assert run.tokenizer == data.tokenizer
    assert run.test.texts == data.test.texts
    np.testing.assert_array_equal(run.test.targets, data.test.targets)
    for key, array in data.test.inputs.items():
        np.testing.assert_array_equal(run.test.inputs[key], array)
        assert run.test.inputs[key].dtype == array.dtype


def test_the_metric_on_record_is_the_loaded_models(train: Train) -> None:
    run = load_run(train("tiny-images"), RECIPES)
    answer = FAMILIES["image-classifier"].answer(run.model, {"images": torch.from_numpy(run.test.inputs["images"])})
    accuracy = (answer["logits"].argmax(-1).numpy() == run.test.targets).mean()
    assert run.checkpoint.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.9


def test_no_run_and_an_unfinished_run_are_told_apart(folder: Path) -> None:
    with pytest.raises(RunError, match="no run is here"):
        load_run(folder.parent / "nowhere", RECIPES)
    (folder / "checkpoint.json").unlink()
    with pytest.raises(RunError, match="did not finish; resume it with: python -m training run"):
        load_run(folder, RECIPES)


@pytest.mark.parametrize("name", ["weights.safetensors", "test.safetensors"])
def test_a_changed_file_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} was changed"):
        load_run(folder, RECIPES)


def test_a_missing_file_and_an_unknown_recipe_are_named(folder: Path) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**facts, "recipe": "tiny-other"}))
    with pytest.raises(RunError, match="unknown recipe 'tiny-other'; known are tiny-images"):
        load_run(folder, RECIPES)
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    (folder / "test.safetensors").unlink()
    with pytest.raises(RunError, match=r"cannot read test\.safetensors: No such file"):
        load_run(folder, RECIPES)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    changed = {**facts, "recipe": "tiny-language", "config": {"vocabulary": 4}}
    (folder / "checkpoint.json").write_text(json.dumps(changed))
    with pytest.raises(RunError, match=r"weights\.safetensors does not fit recipe tiny-language"):
        load_run(folder, RECIPES)


def test_a_broken_checkpoint_is_refused(folder: Path) -> None:
    (folder / "checkpoint.json").write_text('{"recipe": "tiny-images"}')
    with pytest.raises(RunError, match=r"checkpoint\.json cannot be read"):
        load_run(folder, RECIPES)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"config": {"size": 3}}, r"the config of checkpoint\.json does not fit recipe tiny-images: .*'size'"),
        ({"files": {}}, r"checkpoint\.json lists the files \[\], expected weights\.safetensors and test\.safetensors"),
        ({"files": {"../x": "", "weights.safetensors": "", "test.safetensors": ""}}, r"lists the files \['\.\./x', "),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(folder: Path, changes: dict[str, object], sentence: str) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**facts, **changes}))
    with pytest.raises(RunError, match=sentence):
        load_run(folder, RECIPES)


@pytest.mark.parametrize("name", ["weights.safetensors", "test.safetensors"])
def test_bytes_that_are_no_tensors_are_refused(folder: Path, name: str) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / name).write_bytes(b"no tensors")
    facts["files"][name] = hashlib.sha256(b"no tensors").hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"weights\.safetensors or test\.safetensors cannot be read: "):
        load_run(folder, RECIPES)


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    write_snapshot(tmp_path, tensors, {"step": 3, "best": None})
    back, progress = read_snapshot(tmp_path)
    assert progress == {"step": 3, "best": None}
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


def test_no_snapshot_and_a_torn_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing to resume: there is no optimizer\.safetensors"):
        read_snapshot(tmp_path)
    write_snapshot(tmp_path, {"a": torch.zeros(100)}, {})
    whole = (tmp_path / "optimizer.safetensors").read_bytes()
    (tmp_path / "optimizer.safetensors").write_bytes(whole[:200])
    with pytest.raises(RunError, match="cannot be read"):
        read_snapshot(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
