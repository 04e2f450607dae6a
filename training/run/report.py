"""The report of a finished run: metrics on the test split, pictures, and the checkpoint.

The test split is evaluated here, once, and nowhere before. The pictures of a run are always the same bytes.
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

from training.batches import batch_tensors, sequential_batches
from training.checkpoint import finish_run, write_file
from training.evaluation import evaluate, model_predictor
from training.families import FAMILIES
from training.fidelity import generate_images, measure_fidelity
from training.recipe import Recipe, Split
from training.run import pictures
from training.run.loop import Loop

NUM_MISTAKES = 40
NUM_SAMPLES = 100
SAMPLE_TOKENS = 300
PROMPT_WORDS = 4
TEMPERATURE = 0.8


@dataclass(frozen=True, kw_only=True)
class Mistakes:
    """The prediction for every test item, and the wrong predictions with the highest probability."""

    predicted: np.ndarray  # [items]
    probability: np.ndarray  # [items], of the predicted label
    worst: np.ndarray  # [up to NUM_MISTAKES], positions in the split


def write_report(loop: Loop) -> dict[str, float]:
    """Evaluate the best weights of the run, write the pictures and the checkpoint, and return the metrics."""
    recipe, data, folder = loop.recipe, loop.data, loop.folder
    model = loop.best_model()
    predict = model_predictor(recipe.family, model, torch.device("cpu"))
    metrics = {f"test_{name}": value for name, value in evaluate(recipe.family, predict, data.test).items()}
    metrics |= {f"validation_{name}": value for name, value in loop.progress.best.items()}

    files: dict[str, bytes] = {}
    if FAMILIES[recipe.family].metric is not None:
        files["curves.png"] = pictures.curves(recipe.name, loop.progress.curves, loop.progress.best_step)
    if data.labels:
        mistakes = find_mistakes(recipe, model, data.test)
        files["confusion.png"] = pictures.confusion(recipe.name, data.test.targets, mistakes.predicted, data.labels)
        files["misclassified.png"] = _misclassified(data.test, mistakes, data.labels)
    if recipe.family == "language-model" and data.tokenizer is not None:
        files["samples.txt"] = text_samples(recipe, model, data.test, data.tokenizer, seed=loop.plan.seed).encode()
    if recipe.family == "image-generator":
        fidelity = measure_fidelity(model, data.test, real=data.train)
        metrics = {f"test_{name}": value for name, value in fidelity.items()}
        files["curves.png"] = pictures.curves(recipe.name, loop.progress.curves, None)
        files["samples.png"] = pictures.grid(generate_images(model, data.test)[:NUM_SAMPLES])
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
        "versions": package_versions(),
        "commit": git_commit(),
    }
    finish_run(folder, model=model, test=data.test, tokenizer=data.tokenizer, facts=facts)
    return metrics


def find_mistakes(recipe: Recipe, model: torch.nn.Module, split: Split) -> Mistakes:
    """Predict every item of the split; the prediction of a tagger is that of the item's last step."""
    predicted, probability = np.zeros(len(split), np.int64), np.zeros(len(split), np.float32)
    for batch in sequential_batches(split, 256):
        inputs, _ = batch_tensors(split, batch)
        probabilities = _last_step(FAMILIES[recipe.family].predict(model, inputs)["probabilities"], inputs)
        best = probabilities.max(-1)
        predicted[batch], probability[batch] = best.indices.numpy(), best.values.numpy()
    mistaken = np.flatnonzero(predicted != split.targets)
    worst = mistaken[np.argsort(-probability[mistaken], kind="stable")][:NUM_MISTAKES]
    return Mistakes(predicted=predicted, probability=probability, worst=worst)


def _last_step(probabilities: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
    """[items, labels] from [items, steps, labels] of a tagger; other probabilities are returned unchanged."""
    if probabilities.dim() == 2:
        return probabilities
    return probabilities[torch.arange(len(probabilities)), inputs["lengths"] - 1]


def _misclassified(split: Split, mistakes: Mistakes, labels: tuple[str, ...]) -> bytes:
    titles = [
        f"{labels[split.targets[i]]} → {labels[mistakes.predicted[i]]} {mistakes.probability[i]:.0%}"
        for i in mistakes.worst
    ]
    if split.texts:
        return pictures.text_table([split.texts[i] for i in mistakes.worst], titles)
    if "images" in split.inputs:
        return pictures.gallery(list(split.inputs["images"][mistakes.worst]), titles)
    rows = [split.inputs["series"][i, : split.inputs["lengths"][i]].T for i in mistakes.worst]
    return pictures.gallery(rows, titles)


def text_samples(recipe: Recipe, model: torch.nn.Module, test: Split, tokenizer: str, *, seed: int) -> str:
    """The first words of three lines of the test text, each followed by the continuation that the model generates."""
    codec = Tokenizer.from_str(tokenizer)
    lines = [line for text in test.texts for line in text.splitlines() if len(line) > 20]
    prompts = [lines[len(lines) * i // 3] for i in range(3)] if len(lines) >= 3 else ["The"] * 3
    generator = torch.Generator().manual_seed(seed)
    samples = []
    for line in prompts:
        prompt = " ".join(line.split()[:PROMPT_WORDS])
        ids = codec.encode(prompt, add_special_tokens=False).ids
        generated = _generate(recipe, model, ids, generator)
        samples.append(f">>> {prompt}\n{codec.decode(generated[len(ids) :])}\n")
    return "\n".join(samples)


def _generate(recipe: Recipe, model: torch.nn.Module, ids: list[int], generator: torch.Generator) -> list[int]:
    """`ids` and sampled tokens after it, up to the context length or SAMPLE_TOKENS in all."""
    context = recipe.max_steps or len(ids) + SAMPLE_TOKENS
    while len(ids) < min(context, SAMPLE_TOKENS):
        logits = FAMILIES[recipe.family].predict(model, {"ids": torch.tensor([ids])})["logits"][0, -1]
        ids = [*ids, int(torch.multinomial((logits / TEMPERATURE).softmax(-1), 1, generator=generator))]
    return ids


def package_versions() -> dict[str, str]:
    packages = ("torch", "numpy", "safetensors", "tokenizers")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def git_commit() -> str:
    """The commit of this checkout, with "-dirty" when files are modified; "unknown" outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
