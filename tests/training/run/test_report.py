import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.checkpoint import load_run
from training.run.report import find_mistakes, git_commit, package_versions

FILES = {"checkpoint.json", "optimizer.safetensors", "weights.safetensors", "test.safetensors", "curves.png"}
CLASSIFIER_FILES = FILES | {"confusion.png", "misclassified.png"}
Train = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "files", "metrics"),
    [
        ("tiny-images", CLASSIFIER_FILES, {"loss", "accuracy"}),
        ("tiny-series", CLASSIFIER_FILES, {"loss", "accuracy"}),
        ("tiny-tagger", CLASSIFIER_FILES, {"loss", "accuracy", "step_accuracy"}),
        (
            "tiny-language",
            FILES | {"tokenizer.json", "tokens.jsonl", "test.jsonl", "samples.txt"},
            {"loss", "accuracy", "nats_per_character"},
        ),
        (
            "tiny-gan",
            FILES | {"samples.png"},
            {"precision", "recall", "density", "coverage", "rarest_label", "commonest_label"},
        ),
    ],
)
def test_report_writes_files_and_metrics(train: Train, name: str, files: set[str], metrics: set[str]) -> None:
    folder = train(name)
    assert {path.name for path in folder.iterdir()} == files
    recorded = load_run(folder, RECIPES).checkpoint.metrics
    assert {key.removeprefix("test_") for key in recorded if key.startswith("test_")} == metrics


def test_equal_runs_write_equal_pictures_and_weights(train: Train) -> None:
    one, other = train("tiny-images"), train("tiny-images", "--seed", "0")
    for name in ("curves.png", "confusion.png", "misclassified.png", "weights.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_find_mistakes_sorts_wrong_predictions_by_probability(train: Train) -> None:
    run = load_run(train("tiny-series"), RECIPES)
    mistakes = find_mistakes(run.recipe, run.model, run.test)
    with torch.no_grad():
        logits = run.model(*(torch.from_numpy(run.test.inputs[name]) for name in ("series", "lengths")))
    probabilities = logits.softmax(-1).numpy()
    np.testing.assert_array_equal(mistakes.predicted, probabilities.argmax(-1))
    assert set(mistakes.worst) == set(np.flatnonzero(mistakes.predicted != run.test.targets))
    assert np.all(np.diff(mistakes.probability[mistakes.worst]) <= 0)
    assert run.checkpoint.metrics["test_accuracy"] == pytest.approx(1 - len(mistakes.worst) / len(run.test))


def test_find_mistakes_uses_last_step_of_tagger(train: Train) -> None:
    run = load_run(train("tiny-tagger"), RECIPES)
    mistakes = find_mistakes(run.recipe, run.model, run.test)
    assert (mistakes.predicted == run.test.targets).mean() == pytest.approx(run.checkpoint.metrics["test_accuracy"])


def test_text_samples_hold_prompts_and_continuations(train: Train) -> None:
    text = (train("tiny-language") / "samples.txt").read_text()
    assert text.count(">>> abc") == 3
    assert len(text) > 100


def test_checkpoint_records_versions_and_commit(train: Train) -> None:
    facts = json.loads((train("tiny-images") / "checkpoint.json").read_text())
    assert facts["versions"] == package_versions()
    assert facts["versions"]["torch"].startswith("2.")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    assert git_commit() == "unknown" or head.startswith(git_commit().removesuffix("-dirty"))
