import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.tiny import RECIPES
from training.checkpoint import load_run
from training.report import commit, mistakes, versions

FILES = {"checkpoint.json", "optimizer.safetensors", "weights.safetensors", "test.safetensors", "curves.png"}
CLASSIFIED = FILES | {"confusion.png", "misclassified.png"}
Train = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "files", "metrics"),
    [
        ("tiny-images", CLASSIFIED, {"loss", "accuracy"}),
        ("tiny-series", CLASSIFIED, {"loss", "accuracy"}),
        ("tiny-tagger", CLASSIFIED, {"loss", "accuracy", "step_accuracy"}),
        (
            "tiny-language",
            FILES | {"tokenizer.json", "test.jsonl", "samples.txt"},
            {"loss", "accuracy", "nats_per_character"},
        ),
        ("tiny-gan", FILES | {"samples.png"}, {"precision", "coverage", "rarest_label", "commonest_label"}),
    ],
)
def test_what_a_run_leaves(train: Train, name: str, files: set[str], metrics: set[str]) -> None:
    folder = train(name)
    assert {path.name for path in folder.iterdir()} == files
    found = load_run(folder, RECIPES).checkpoint.metrics
    assert {key.removeprefix("test_") for key in found if key.startswith("test_")} == metrics


def test_pictures_do_not_depend_on_the_run(train: Train) -> None:
    one, other = train("tiny-images"), train("tiny-images", "--seed", "0")
    for name in ("curves.png", "confusion.png", "misclassified.png", "weights.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes()


def test_mistakes_are_the_wrong_answers_surest_first(train: Train) -> None:
    run = load_run(train("tiny-series"), RECIPES)
    found = mistakes(run.recipe, run.model, run.test)
    with torch.no_grad():
        logits = run.model(*(torch.from_numpy(run.test.inputs[name]) for name in ("series", "lengths")))
    probabilities = logits.softmax(-1).numpy()
    np.testing.assert_array_equal(found.predicted, probabilities.argmax(-1))
    assert set(found.worst) == set(np.flatnonzero(found.predicted != run.test.targets))
    assert np.all(np.diff(found.probability[found.worst]) <= 0)
    assert run.checkpoint.metrics["test_accuracy"] == pytest.approx(1 - len(found.worst) / len(run.test))


def test_a_tagger_is_judged_by_each_last_step(train: Train) -> None:
    run = load_run(train("tiny-tagger"), RECIPES)
    found = mistakes(run.recipe, run.model, run.test)
    assert (found.predicted == run.test.targets).mean() == pytest.approx(run.checkpoint.metrics["test_accuracy"])


def test_text_samples_are_prompts_gone_on_with(train: Train) -> None:
    text = (train("tiny-language") / "samples.txt").read_text()
    assert text.count(">>> abc") == 3
    assert len(text) > 100


def test_a_run_says_where_it_comes_from(train: Train) -> None:
    facts = json.loads((train("tiny-images") / "checkpoint.json").read_text())
    assert facts["versions"] == versions()
    assert facts["versions"]["torch"].startswith("2.")
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    assert commit() == "unknown" or head.startswith(commit().removesuffix("-dirty"))
