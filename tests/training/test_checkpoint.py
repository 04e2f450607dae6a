import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.training.tiny import RECIPES
from training.checkpoint import RunError, load_run, read_snapshot, write_file, write_snapshot
from training.families import FAMILIES
from training.token_cases import choose_cases

Train = Callable[..., Path]


@pytest.fixture
def folder(train: Train, tmp_path: Path) -> Path:
    """A copy of a finished run that a test may damage."""
    return Path(shutil.copytree(train("tiny-images"), tmp_path / "run"))


@pytest.mark.parametrize("name", ["tiny-images", "tiny-tagger", "tiny-language", "tiny-gan"])
def test_load_run_returns_what_was_saved(train: Train, name: str) -> None:
    run = load_run(train(name), RECIPES)
    data = RECIPES[name].load(None)
    assert run.recipe is RECIPES[name]
    assert not run.model.training
    assert run.checkpoint.labels == data.labels
    assert run.tokenizer == data.tokenizer
    assert run.tokens == (() if data.tokenizer is None else choose_cases(data.tokenizer, data.test))
    assert run.test.texts == data.test.texts
    np.testing.assert_array_equal(run.test.targets, data.test.targets)
    for key, array in data.test.inputs.items():
        np.testing.assert_array_equal(run.test.inputs[key], array)
        assert run.test.inputs[key].dtype == array.dtype


def test_recorded_accuracy_is_that_of_the_loaded_model(train: Train) -> None:
    run = load_run(train("tiny-images"), RECIPES)
    outputs = FAMILIES["image-classifier"].predict(run.model, {"images": torch.from_numpy(run.test.inputs["images"])})
    accuracy = (outputs["logits"].argmax(-1).numpy() == run.test.targets).mean()
    assert run.checkpoint.metrics["test_accuracy"] == pytest.approx(accuracy)
    assert accuracy > 0.9


def test_a_model_with_tied_weights_is_written_and_tied_again_when_it_is_loaded(train: Train) -> None:
    model = load_run(train("tiny-tied"), RECIPES).model
    assert model.head.weight is model.embedding.weight
    stored = load_file(train("tiny-tied") / "weights.safetensors")
    assert torch.equal(stored["head.weight"], stored["embedding.weight"])
    assert torch.equal(stored["head.weight"], model.head.weight)


def test_load_run_distinguishes_missing_from_unfinished_run(folder: Path) -> None:
    with pytest.raises(RunError, match="the folder holds no run"):
        load_run(folder.parent / "nowhere", RECIPES)
    (folder / "checkpoint.json").unlink()
    with pytest.raises(RunError, match="did not finish; resume it with: python -m training run"):
        load_run(folder, RECIPES)


@pytest.mark.parametrize("name", ["weights.safetensors", "test.safetensors"])
def test_load_run_refuses_changed_file(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=f"{name} was changed"):
        load_run(folder, RECIPES)


def test_load_run_names_missing_file_and_unknown_recipe(folder: Path) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**facts, "recipe": "tiny-other"}))
    with pytest.raises(RunError, match="unknown recipe 'tiny-other'; known are tiny-images"):
        load_run(folder, RECIPES)
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    (folder / "test.safetensors").unlink()
    with pytest.raises(RunError, match=r"cannot read test\.safetensors: No such file"):
        load_run(folder, RECIPES)


def test_load_run_refuses_weights_of_another_architecture(folder: Path) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    changed = {**facts, "recipe": "tiny-language", "config": {"vocabulary": 4}}
    (folder / "checkpoint.json").write_text(json.dumps(changed))
    with pytest.raises(RunError, match=r"weights\.safetensors does not fit recipe tiny-language"):
        load_run(folder, RECIPES)


def test_load_run_refuses_incomplete_checkpoint(folder: Path) -> None:
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
def test_load_run_refuses_checkpoint_that_does_not_fit_recipe(
    folder: Path, changes: dict[str, object], sentence: str
) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps({**facts, **changes}))
    with pytest.raises(RunError, match=sentence):
        load_run(folder, RECIPES)


@pytest.mark.parametrize("name", ["weights.safetensors", "test.safetensors"])
def test_load_run_refuses_file_without_tensors(folder: Path, name: str) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / name).write_bytes(b"no tensors")
    facts["files"][name] = hashlib.sha256(b"no tensors").hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"weights\.safetensors or test\.safetensors cannot be read: "):
        load_run(folder, RECIPES)


def test_read_snapshot_returns_what_was_written(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).reshape(2, 3).T, "b": torch.tensor(3)}
    write_snapshot(tmp_path, tensors, {"step": 3, "best": None})
    read, progress = read_snapshot(tmp_path)
    assert progress == {"step": 3, "best": None}
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_read_snapshot_distinguishes_missing_from_truncated_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nothing to resume: there is no optimizer\.safetensors"):
        read_snapshot(tmp_path)
    write_snapshot(tmp_path, {"a": torch.zeros(100)}, {})
    complete = (tmp_path / "optimizer.safetensors").read_bytes()
    (tmp_path / "optimizer.safetensors").write_bytes(complete[:200])
    with pytest.raises(RunError, match="cannot be read"):
        read_snapshot(tmp_path)


def test_failed_write_leaves_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_file(tmp_path / "file", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_load_run_refuses_token_cases_that_cannot_be_read(folder: Path) -> None:
    facts = json.loads((folder / "checkpoint.json").read_text())
    (folder / "tokens.jsonl").write_bytes(b"{}")
    facts["files"]["tokens.jsonl"] = hashlib.sha256(b"{}").hexdigest()
    (folder / "checkpoint.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"tokens\.jsonl cannot be read: 'text'"):
        load_run(folder, RECIPES)
