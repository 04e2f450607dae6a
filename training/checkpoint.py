"""The run folder: the trained model and everything that export needs, so export never reads the data set.

`checkpoint.json` is written last and holds the hash of every other file; a run is finished when this file exists.
An unfinished run has only `optimizer.safetensors`, from which it resumes. Files are written atomically (temporary
file, fsync, rename), so a reader never sees a partial file.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from training.models import RECIPES
from training.recipe import Recipe, Split
from training.token_cases import TokenCase, choose_cases, pack_cases, unpack_cases

CHECKPOINT, WEIGHTS, SNAPSHOT, TEST, TEXTS, TOKENIZER, TOKENS = (
    "checkpoint.json",
    "weights.safetensors",
    "optimizer.safetensors",
    "test.safetensors",
    "test.jsonl",
    "tokenizer.json",
    "tokens.jsonl",
)


class RunError(ValueError):
    """A run that cannot be used; the message names the folder or recipe, and what was found."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The content of `checkpoint.json`."""

    recipe: str
    family: str
    summary: str
    config: dict[str, Any]  # keywords of the recipe's `build`
    labels: tuple[str, ...]
    seed: int
    steps: int  # completed
    best_step: int  # the step after which the weights were copied
    seconds: float  # of training
    device: str
    threads: int
    data: dict[str, Any]  # name, note, sha256 of each source
    metrics: dict[str, float]  # test_..., validation_...
    curves: list[dict[str, float]]  # one point for each evaluation
    versions: dict[str, str]
    commit: str
    files: dict[str, str]  # name -> sha256


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run; the model has its trained weights and is in eval mode, on the CPU.

    `tokens` are texts with the ids that the tokenizer of training gave them; runs of earlier revisions have none.
    """

    folder: Path
    recipe: Recipe
    model: nn.Module
    checkpoint: Checkpoint
    test: Split
    tokenizer: str | None
    tokens: tuple[TokenCase, ...] = ()


def write_file(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_snapshot(folder: Path, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Write the file from which a run resumes: its tensors, with its progress as JSON in the file's metadata."""
    contiguous = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata = {"progress": json.dumps(progress, sort_keys=True)}
    write_file(folder / SNAPSHOT, save_tensors(contiguous, metadata))


def read_snapshot(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and progress of the snapshot. Raises RunError when it is missing or cannot be read."""
    try:
        content = (folder / SNAPSHOT).read_bytes()
        tensors = load_tensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, json.loads(header["__metadata__"]["progress"])
    except FileNotFoundError:
        raise RunError(f"{folder}: nothing to resume: there is no {SNAPSHOT}") from None
    except (SafetensorError, ValueError, KeyError) as error:
        raise RunError(f"{folder}: {SNAPSHOT} cannot be read: {error}") from error


def start_run(folder: Path) -> None:
    """Create the folder and remove the checkpoint and snapshot of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    (folder / SNAPSHOT).unlink(missing_ok=True)


def finish_run(folder: Path, *, model: nn.Module, test: Split, tokenizer: str | None, facts: Mapping[str, Any]) -> None:
    """Write weights, test split, tokenizer and token cases, then the checkpoint.

    `facts` holds the checkpoint's fields except `files`.
    """
    # Tied weights are one tensor under several names; the file holds a copy under each, and loading ties them again.
    weights = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    contents = {WEIGHTS: save_tensors(weights), TEST: save_arrays(_pack(test))}
    if test.texts:
        contents[TEXTS] = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in test.texts).encode()
    if tokenizer is not None:
        contents |= {TOKENIZER: tokenizer.encode(), TOKENS: pack_cases(choose_cases(tokenizer, test))}
    for name, content in contents.items():
        write_file(folder / name, content)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    checkpoint = Checkpoint(**facts, files=files)
    write_file(folder / CHECKPOINT, (json.dumps(asdict(checkpoint), indent=2, ensure_ascii=False) + "\n").encode())


def read_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint of a finished run. Raises RunError when the run is unfinished or the file cannot be read."""
    try:
        fields = json.loads((folder / CHECKPOINT).read_text())
        checkpoint = Checkpoint(**{**fields, "labels": tuple(fields["labels"])})
    except FileNotFoundError:
        hint = f"resume it with: python -m training {folder.name} --out {folder} --resume"
        unfinished = (folder / SNAPSHOT).exists()
        found = f"the run did not finish; {hint}" if unfinished else "the folder holds no run"
        raise RunError(f"{folder}: there is no {CHECKPOINT}: {found}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder}: {CHECKPOINT} cannot be read: {error}") from error
    names = set(checkpoint.files)
    if not {WEIGHTS, TEST} <= names <= {WEIGHTS, TEST, TEXTS, TOKENIZER, TOKENS}:
        raise RunError(
            f"{folder}: {CHECKPOINT} lists the files {sorted(names)}, expected {WEIGHTS} and {TEST} at least"
        )
    return checkpoint


def load_run(folder: Path, recipes: Mapping[str, Recipe] = RECIPES) -> Run:
    """Load the finished run in `folder`. Raises RunError when a file is missing, changed or does not fit its recipe."""
    checkpoint = read_checkpoint(folder)
    if checkpoint.recipe not in recipes:
        raise RunError(f"{folder}: unknown recipe {checkpoint.recipe!r}; known are {', '.join(recipes)}")
    recipe = recipes[checkpoint.recipe]
    contents = {name: _read(folder, name, sha256) for name, sha256 in checkpoint.files.items()}
    try:
        model = recipe.build(**checkpoint.config)
    except TypeError as error:
        raise RunError(f"{folder}: the config of {CHECKPOINT} does not fit recipe {recipe.name}: {error}") from error
    try:
        model.load_state_dict(load_tensors(contents[WEIGHTS]))
        test = _unpack(load_arrays(contents[TEST]), contents.get(TEXTS, b"").decode())
    except RuntimeError as error:
        raise RunError(f"{folder}: {WEIGHTS} does not fit recipe {recipe.name}: {error}") from error
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(f"{folder}: {WEIGHTS} or {TEST} cannot be read: {error}") from error
    try:
        tokens = unpack_cases(contents.get(TOKENS, b""))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{folder}: {TOKENS} cannot be read: {error}") from error
    return Run(
        folder=folder,
        recipe=recipe,
        model=model.eval(),
        checkpoint=checkpoint,
        test=test,
        tokenizer=contents[TOKENIZER].decode() if TOKENIZER in contents else None,
        tokens=tokens,
    )


def _read(folder: Path, name: str, sha256: str) -> bytes:
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise RunError(f"{folder}: cannot read {name}: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{folder}: {name} was changed after the run: its sha256 is not the one in {CHECKPOINT}")
    return content


def _pack(split: Split) -> dict[str, Any]:
    arrays = {f"inputs/{name}": np.ascontiguousarray(array) for name, array in split.inputs.items()}
    return {**arrays, "targets": np.ascontiguousarray(split.targets)}


def _unpack(arrays: dict[str, Any], lines: str) -> Split:
    inputs = {name.removeprefix("inputs/"): array for name, array in arrays.items() if name != "targets"}
    return Split(
        inputs=inputs, targets=arrays["targets"], texts=tuple(json.loads(line) for line in lines.split("\n") if line)
    )
