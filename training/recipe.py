"""Recipes and data sets: everything that determines a trained model, as frozen values.

A model takes the *raw* tensors of a request (uint8 pixels, unscaled series, token ids) and returns logits.
Preprocessing is its first layer, so training, export and service share it.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
from torch import Generator, Tensor, nn

FamilyName = Literal[
    "image-classifier", "series-classifier", "series-tagger", "text-classifier", "language-model", "image-generator"
]

# Changes raw inputs; all randomness is drawn from the generator that the loop passes.
Augment = Callable[[dict[str, Tensor], Generator], dict[str, Tensor]]

# A target at this value counts neither in the loss nor in the scores (PyTorch's `ignore_index`).
IGNORE_INDEX = -100


@dataclass(frozen=True, kw_only=True)
class Split:
    """Raw items; the first axis of each array counts the items, ragged items are zero-padded and have `lengths`.

    `inputs` have the names of the family's graph inputs (see training.families). `targets` are int64 [items]; for a
    language model [items, steps], the next token or IGNORE_INDEX; for the GAN empty. `texts` holds the raw text of
    each item; for a language model, the texts of its targets in order.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    targets: npt.NDArray[np.int64]
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set, ready for training. `sha256` holds the hash of each source; `note` is printed on the model's card.

    Raises ValueError when a split is empty or lacks targets, two labels are equal, a target is not a label, or
    `config` has a value that JSON cannot hold.
    """

    name: str
    note: str
    train: Split
    validation: Split  # for early stopping
    test: Split  # used once, after training
    labels: tuple[str, ...]  # () for a language model or an image generator
    sha256: Mapping[str, str]
    tokenizer: str | None = None  # Hugging Face `tokenizers` JSON, fitted on the training split only
    config: Mapping[str, Any] = field(default_factory=dict)  # keywords of the recipe's `build`: sizes, mean, std

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"data {self.name!r}: two labels are equal: {', '.join(self.labels)}")
        for key, value in self.config.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"data {self.name!r}: config[{key!r}] cannot be written as JSON: {error}; "
                    "convert numpy values with .item() or .tolist()"
                ) from None
        for name in ("train", "validation", "test"):
            split = getattr(self, name)
            if not len(split):
                raise ValueError(f"data {self.name!r}: the {name} split is empty")
            if not self.labels:
                continue
            if len(split.targets) != len(split):
                raise ValueError(
                    f"data {self.name!r}: the {name} split has {len(split)} items and {len(split.targets)} targets"
                )
            unknown = split.targets[(split.targets < 0) | (split.targets >= len(self.labels))]
            if unknown.size:
                last = len(self.labels) - 1
                raise ValueError(
                    f"data {self.name!r}: a target of the {name} split is {unknown[0]}, labels are 0 to {last}"
                )


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """|onnx - torch| <= atol + rtol * |torch|, for every output."""

    atol: float = 1e-5
    rtol: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model of the registry. `build(**config)` returns the untrained module; `config` comes from the data.

    Raises ValueError when the name is not valid for a bundle, the family is unknown, `max_steps` is missing for items
    that have steps, or a count is below 1.
    """

    name: str
    family: FamilyName
    summary: str  # one sentence for cards and tables
    load: Callable[[Path | None], Data]  # None loads the embedded data
    build: Callable[..., nn.Module]
    batch_size: int
    steps: int  # on embedded data
    steps_real: int  # on the real data set
    learning_rate: float
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0  # maximum norm of the gradient of one step
    warmup: float = 0.05  # fraction of the run with rising learning rate; a cosine decay to 1 % follows
    ema: float = 0.0  # decay of the exponential moving average of the weights; 0 disables averaging
    augment: Augment | None = None
    learner: Callable[..., Any] | None = None  # a training.learner.Learner; None is Supervised
    evaluations: int = 20  # on the validation split, evenly spaced over the run
    patience: int = 8  # the run stops after this many evaluations without improvement
    max_items: int = 64  # batch limit of the served model
    max_steps: int | None = None  # length limit of a served series, text or context; None for images
    tolerance: Tolerance = Tolerance()
    # "tolerance" lets export publish a model whose answers depend on their batch, within the tolerance.
    invariance: Literal["bitwise", "tolerance"] = "bitwise"
    control_flow: bool = False  # lets export publish a graph with Loop, Scan or If

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name) or len(self.name) > 64:
            raise ValueError(
                f"recipe {self.name!r}: expected a name of lowercase letters, digits and hyphens, such as mnist-cnn"
            )
        if self.family not in get_args(FamilyName):
            known = ", ".join(get_args(FamilyName))
            raise ValueError(f"recipe {self.name!r}: unknown family {self.family!r}; known are {known}")
        if self.max_steps is None and self.family not in ("image-classifier", "image-generator"):
            raise ValueError(
                f"recipe {self.name!r}: a {self.family} needs max_steps, the length of the longest item that is "
                "served; export verifies the model up to this length"
            )
        for name in ("batch_size", "steps", "steps_real", "evaluations", "max_items", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"recipe {self.name!r}: {name} is {value}, expected 1 or more")
