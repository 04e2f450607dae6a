"""What a finished run leaves for people: metrics on the held-back test split, and pictures.

The test split is looked at here, once, and nowhere before. Pictures of one run are the same bytes each time.
"""

import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import pictures
from training.batches import in_order, take
from training.checkpoint import finish_run, write_file
from training.evaluation import measure, on_device
from training.families import FAMILIES
from training.fidelity import fidelity, generated
from training.loop import Loop
from training.recipe import Recipe, Split

NUM_MISTAKES = 40
NUM_SAMPLES = 100
SAMPLE_TOKENS = 300
TEMPERATURE = 0.8


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """Every test item's prediction, and which wrong ones the model was surest of."""

    predicted: np.ndarray  # [items]
    probability: np.ndarray  # [items], of the predicted label
    worst: np.ndarray  # [up to NUM_MISTAKES], positions in the split


def report(loop: Loop) -> dict[str, float]:
    """Measure the run's best weights, write pictures and the finished run; the metrics."""
    recipe, data, folder = loop.recipe, loop.data, loop.folder
    model = loop.trained()
    answer = on_device(recipe.family, model, torch.device("cpu"))
    metrics = {f"test_{name}": value for name, value in measure(recipe.family, answer, data.test).items()}
    metrics |= {f"validation_{name}": value for name, value in loop.progress.best.items()}

    files: dict[str, bytes] = {}
    if FAMILIES[recipe.family].metric is not None:
        files["curves.png"] = pictures.curves(recipe.name, loop.progress.curves, loop.progress.best_step)
    if data.labels:
        found = mistakes(recipe, model, data.test)
        files["confusion.png"] = pictures.confusion(recipe.name, data.test.targets, found.predicted, data.labels)
        files["misclassified.png"] = _misclassified(data.test, found, data.labels)
    if recipe.family == "language-model" and data.tokenizer is not None:
        files["samples.txt"] = text_samples(recipe, model, data.test, data.tokenizer, seed=loop.plan.seed).encode()
    if recipe.family == "image-generator":
        metrics = {f"test_{name}": value for name, value in fidelity(model, data.test, real=data.train).items()}
        files["curves.png"] = pictures.curves(recipe.name, loop.progress.curves, None)
        files["samples.png"] = pictures.grid(generated(model, data.test)[:NUM_SAMPLES])
    for name, content in files.items():
        write_file(folder / name, content)

    facts = {
        "recipe": recipe.name,
        "family": recipe.family,
        "summary": recipe.summary,
        "config": dict(data.config),
        "labels": data.labels,
        "seed": loop.plan.seed,
        "steps": loop.progress.step,
        "best_step": loop.progress.best_step,
        "seconds": round(loop.progress.seconds, 1),
        "device": loop.plan.device,
        "threads": loop.plan.threads,
        "data": {"name": data.name, "note": data.note, "sha256": dict(data.sha256)},
        "metrics": metrics,
        "curves": loop.progress.curves,
        "versions": versions(),
        "commit": commit(),
    }
    finish_run(folder, model=model, test=data.test, tokenizer=data.tokenizer, facts=facts)
    return metrics


def mistakes(recipe: Recipe, model: torch.nn.Module, split: Split) -> Mistakes:
    """A tagger is judged by each item's last step."""
    predicted, probability = np.zeros(len(split), np.int64), np.zeros(len(split), np.float32)
    for batch in in_order(split, 256):
        inputs, _ = take(split, batch)
        probabilities = _last(FAMILIES[recipe.family].answer(model, inputs)["probabilities"], inputs)
        best = probabilities.max(-1)
        predicted[batch], probability[batch] = best.indices.numpy(), best.values.numpy()
    wrong = np.flatnonzero(predicted != split.targets)
    worst = wrong[np.argsort(-probability[wrong], kind="stable")][:NUM_MISTAKES]
    return Mistakes(predicted=predicted, probability=probability, worst=worst)


def _last(probabilities: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    if probabilities.dim() == 2:
        return probabilities
    return probabilities[torch.arange(len(probabilities)), inputs["lengths"] - 1]


def _misclassified(split: Split, found: Mistakes, labels: tuple[str, ...]) -> bytes:
    titles = [
        f"{labels[split.targets[i]]} → {labels[found.predicted[i]]} {found.probability[i]:.0%}" for i in found.worst
    ]
    if split.texts:
        return pictures.text_table([split.texts[i] for i in found.worst], titles)
    if "images" in split.inputs:
        return pictures.gallery(list(split.inputs["images"][found.worst]), titles)
    rows = [split.inputs["series"][i, : split.inputs["lengths"][i]].T for i in found.worst]
    return pictures.gallery(rows, titles)


def text_samples(recipe: Recipe, model: torch.nn.Module, test: Split, tokenizer: str, *, seed: int) -> str:
    """Three continuations of the test text's lines, prompt and model's words set apart."""
    codec = Tokenizer.from_str(tokenizer)
    lines = [line for text in test.texts for line in text.splitlines() if len(line) > 20]
    prompts = [lines[len(lines) * i // 3] for i in range(3)] if len(lines) >= 3 else ["The "] * 3
    generator = torch.Generator().manual_seed(seed)
    shown = []
    for prompt in prompts:
        ids = codec.encode(prompt + "\n", add_special_tokens=False).ids
        continued = _continue(recipe, model, ids, generator)
        shown.append(f">>> {prompt}\n{codec.decode(continued[len(ids) :])}\n")
    return "\n".join(shown)


def _continue(recipe: Recipe, model: torch.nn.Module, ids: list[int], generator: torch.Generator) -> list[int]:
    context = recipe.max_steps or len(ids) + SAMPLE_TOKENS
    while len(ids) < min(context, SAMPLE_TOKENS):
        logits = FAMILIES[recipe.family].answer(model, {"ids": torch.tensor([ids])})["logits"][0, -1]
        ids = [*ids, int(torch.multinomial((logits / TEMPERATURE).softmax(-1), 1, generator=generator))]
    return ids


def versions() -> dict[str, str]:
    packages = ("torch", "numpy", "safetensors", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def commit() -> str:
    """The commit that this code is at, with "-dirty" where it differs; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
