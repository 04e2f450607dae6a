"""What a recipe is: everything that decides a trained model, as one frozen value.

A model takes the *raw* tensors of a request (uint8 pixels, unscaled series, token ids) and returns logits: its first
layer is its preprocessing, so training, export and service cannot disagree about it.
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

Augment = Callable[
    [dict[str, Tensor], Generator], dict[str, Tensor]
]  # of raw inputs, drawing from the loop's generator


@dataclass(frozen=True, kw_only=True)
class Split:
    """Items in raw form: each array's first axis counts the items; ragged items are zero-padded, with `lengths`.

    `inputs` are named as the family's graph inputs (see training.families). `targets` are int64 [items], or
    [items, steps] for a language model (the next token; the windows of a split tile its text), or empty for the GAN.
    `texts` holds the raw text of each item of a text model, for a language model the split's whole text as one entry.
    """

    inputs: Mapping[str, npt.NDArray[Any]]
    targets: npt.NDArray[np.int64]
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True, kw_only=True)
class Data:
    """A data set ready to train on. `sha256` names each source that was read; `note` goes on the model's card.

    Raises ValueError where a split is empty or lacks targets, labels repeat, a target is none of them, or what is in
    `config` cannot be written as JSON.
    """

    name: str
    note: str
    train: Split
    validation: Split  # for early stopping; never the test split
    test: Split  # held back: looked at once, at the end
    labels: tuple[str, ...]  # () for generators
    sha256: Mapping[str, str]
    tokenizer: str | None = None  # Hugging Face `tokenizers` JSON, fitted on the training split only
    config: Mapping[str, Any] = field(default_factory=dict)  # keywords of `build`, JSON-able: sizes, means, deviations

    def __post_init__(self) -> None:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError(f"data {self.name!r}: two labels are the same: {', '.join(self.labels)}")
        for key, value in self.config.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"data {self.name!r}: config[{key!r}] cannot be written as JSON: {error}; "
                    "numpy's values become Python's by .item() and .tolist()"
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
            odd = split.targets[(split.targets < 0) | (split.targets >= len(self.labels))]
            if odd.size:
                last = len(self.labels) - 1
                raise ValueError(
                    f"data {self.name!r}: a target of the {name} split is {odd[0]}, labels are 0 to {last}"
                )


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """|onnx - torch| <= atol + rtol * |torch|, for every output."""

    atol: float = 1e-5
    rtol: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One model of the registry. `build(**config)` makes the untrained module from a checkpoint's config alone.

    Raises ValueError where no bundle could be named so, there is no such family, items have steps and no limit, or a
    number that counts something is below 1.
    """

    name: str
    family: FamilyName
    summary: str  # one sentence for cards and tables
    load: Callable[[Path | None], Data]  # None is the embedded data
    build: Callable[..., nn.Module]
    batch_size: int
    steps: int  # on embedded data
    steps_real: int  # on the real set
    learning_rate: float
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float = 1.0  # largest norm of a step's whole gradient
    warmup: float = 0.05  # share of the steps until the learning rate is reached; after it, a cosine down to 1 %
    ema: float = 0.0  # decay of the exponential moving average of the weights that is kept; 0 keeps the weights
    augment: Augment | None = None
    learner: Callable[..., Any] | None = None  # a training.learner.Learner; None is Supervised
    evaluations: int = 20  # on the validation split, spread over the run
    patience: int = 8  # evaluations without a better one until the run stops early
    max_items: int = 64  # limits of the served model
    max_steps: int | None = None  # longest series, text or context; None for images alone
    tolerance: Tolerance = Tolerance()

    def __post_init__(self) -> None:
        if not re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", self.name) or len(self.name) > 64:
            raise ValueError(f"recipe {self.name!r}: a name is small letters, digits and hyphens, such as mnist-cnn")
        if self.family not in get_args(FamilyName):
            known = ", ".join(get_args(FamilyName))
            raise ValueError(f"recipe {self.name!r}: there is no family {self.family!r}; there are {known}")
        if self.max_steps is None and self.family not in ("image-classifier", "image-generator"):
            raise ValueError(
                f"recipe {self.name!r}: a {self.family} needs max_steps, the longest item that is served: "
                "export proves it at lengths up to that"
            )
        for name in ("batch_size", "steps", "steps_real", "evaluations", "max_items", "max_steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"recipe {self.name!r}: {name} is {value}, expected 1 or more")
