"""The folder of a trained Keras model: everything that `python -m export keras` reads, and the metrics, written last.

model.keras, examples.safetensors (the test split with its targets), spec.toml, metrics.json
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from training.checkpoint import write_file
from training.keras_models.models import KerasRecipe
from training.recipe import Data, Split

MODEL, EXAMPLES, SPEC, METRICS = "model.keras", "examples.safetensors", "spec.toml", "metrics.json"


def write_folder(folder: Path, recipe: KerasRecipe, data: Data, model: Any, metrics: Mapping[str, float]) -> None:
    """Write the files of a trained model; a folder with metrics.json is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / MODEL)
    save_file(examples(data.test), folder / EXAMPLES)
    write_file(folder / SPEC, spec_text(recipe, data).encode())
    write_file(folder / METRICS, json.dumps(dict(metrics), indent=2).encode())


def examples(split: Split) -> dict[str, Any]:
    """The arrays of a split; the target of a series is that of each of its steps, and -100 after its end."""
    targets, lengths = split.targets, split.inputs.get("lengths")
    if lengths is not None:
        steps = np.arange(split.inputs["series"].shape[1])
        targets = np.where(steps < lengths[:, None], targets[:, None], -100)
    return {**split.inputs, "targets": np.ascontiguousarray(targets)}


def spec_text(recipe: KerasRecipe, data: Data) -> str:
    """The spec.toml of a model."""
    head = {"name": recipe.name, "summary": recipe.summary, "dataset": data.name, "note": data.note}
    tables = recipe.spec(data)
    lines = [f"{key} = {_toml(value)}" for key, value in head.items()]
    for table, values in tables.items():
        lines += ["", f"[{table}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items()) + " }"
    # Texts, numbers and lists of them are the same in TOML as in JSON.
    return json.dumps(value, ensure_ascii=False)
