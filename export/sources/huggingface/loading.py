"""Loads a saved model of `transformers` from a folder, without code or weights from elsewhere.

Invariant: every weight of the model comes from the folder's safetensors files; nothing is initialised at random, and
nothing in the folder runs code.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig, PreTrainedModel

from export.errors import ExportError

AUTO_CLASSES: Mapping[str, str] = {
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "feature-extraction": "AutoModel",
    "image-classification": "AutoModelForImageClassification",
    "text-generation": "AutoModelForCausalLM",
}
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
ANOTHER_WAY = "`python -m export module` takes any nn.Module"
# Of the weights that a folder lacks, a message names up to this many.
MAX_NAMED = 3
# The part of an encoder that no embedding reads unless the pooling says so.
POOLER = "pooler."
STAGE = "load"


def load_model(folder: Path, task: str) -> PreTrainedModel:
    """The folder's model for the task, in float32 and eval mode. Raises ExportError."""
    _check_files(folder)
    auto = getattr(transformers, AUTO_CLASSES[task])
    with silent(), readable_errors(folder):
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            raise ExportError(STAGE, f"{folder}: the weights are quantised, expected those of floats")
        model, report = auto.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    _check_weights(folder, task, report)
    model.eval().requires_grad_(False)
    return model


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise ExportError(STAGE, f"{folder} is no folder, expected one that save_pretrained wrote")
    if not (folder / "config.json").is_file():
        raise ExportError(STAGE, f"{folder} holds no config.json, expected a folder that save_pretrained wrote")
    if any((folder / name).is_file() for name in WEIGHTS):
        return
    pickle = next((name for name in PICKLES if (folder / name).is_file()), None)
    if pickle is None:
        raise ExportError(STAGE, f"{folder} holds no model.safetensors, expected the weights beside config.json")
    raise ExportError(
        STAGE,
        f"{folder} holds {pickle}, a pickle, which may run code when it is read; where you trust it, load it with "
        "from_pretrained and write model.safetensors with save_pretrained",
    )


def _check_weights(folder: Path, task: str, report: Mapping[str, Any]) -> None:
    """Refuse a model of which `transformers` would draw a part at random, or of which it would drop a part."""
    absent = sorted(report["missing_keys"])
    if task == "feature-extraction":
        absent = [name for name in absent if not name.startswith(POOLER)]
    elif unused := sorted(report["unexpected_keys"]):
        raise ExportError(STAGE, f"{folder}: a model for {task} has no place for the weights {_named(unused)}")
    if absent:
        raise ExportError(STAGE, f"{folder}: model.safetensors lacks {_named(absent)}, which {task} needs")
    if report["mismatched_keys"]:
        name, found, expected = min(report["mismatched_keys"])
        raise ExportError(
            STAGE, f"{folder}: {name} is {list(found)} in model.safetensors, {list(expected)} by config.json"
        )


def _named(names: list[str]) -> str:
    others = len(names) - MAX_NAMED
    return ", ".join(names[:MAX_NAMED]) + (f" and {others} others" if others > 0 else "")


@contextmanager
def readable_errors(folder: Path) -> Iterator[None]:
    """Within this context, an error of `transformers` is an ExportError that quotes its first line."""
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(STAGE, f"transformers cannot load {folder}: {reason[:400]}; {ANOTHER_WAY}") from error


@contextmanager
def silent() -> Iterator[None]:
    """Within this context, `transformers` prints no progress and no advice: what matters is an error."""
    level = transformers.logging.get_verbosity()
    shows_progress = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers.logging.set_verbosity(level)
        if shows_progress:
            transformers.logging.enable_progress_bar()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """The object in a file of the folder, {} if there is no such file. Raises ExportError."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ExportError(STAGE, f"{path}: no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ExportError(STAGE, f"{path}: expected an object")
    return content


def unsupported(model: PreTrainedModel | PreTrainedConfig, reason: str) -> ExportError:
    """The error for an architecture that cannot be exported from its folder alone."""
    name = type(model).__name__
    return ExportError("graph", f"{name} {reason}; {ANOTHER_WAY}")
