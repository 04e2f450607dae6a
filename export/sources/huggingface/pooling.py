"""How an encoder's hidden states become one embedding: the mean over the tokens, or as sentence-transformers says.

A folder of sentence-transformers has modules.json, which lists a transformer, a pooling, and perhaps a normalisation.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from export.errors import ExportError
from export.sources.huggingface.loading import ANOTHER_WAY, STAGE, read_json

Mode = Literal["mean", "cls", "max"]
# By the names of older folders, such as "pooling_mode_cls_token": true, and of newer ones, "pooling_mode": "cls".
MODES: dict[str, Mode] = {
    "mean_tokens": "mean",
    "cls_token": "cls",
    "max_tokens": "max",
    "mean": "mean",
    "cls": "cls",
    "max": "max",
}
PREFIX = "pooling_mode_"
MODULES = "modules.json"


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How hidden states are pooled, whether the result has length 1, and the most tokens, if the folder says so.

    `transformer` is the folder with config.json and the weights.
    """

    mode: Mode
    normalized: bool
    transformer: Path
    max_steps: int | None = None


def read_pooling(folder: Path) -> Pooling:
    """The pooling that the folder declares; without modules.json, the mean over the tokens. Raises ExportError."""
    if not (folder / MODULES).is_file():
        return Pooling(mode="mean", normalized=False, transformer=folder)
    modules = _read_modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or kinds[2:] not in ([], ["Normalize"]):
        raise ExportError(
            STAGE,
            f"{folder / MODULES} lists {', '.join(kinds)}, expected Transformer, Pooling and perhaps Normalize; "
            f"{ANOTHER_WAY}",
        )
    transformer = folder / modules[0][1]
    settings = read_json(transformer, "sentence_bert_config.json")
    if settings.get("do_lower_case"):
        raise ExportError(STAGE, f"{transformer}: sentence_bert_config.json lowers texts before the tokenizer does")
    return Pooling(
        mode=_read_mode(folder / modules[1][1]),
        normalized=kinds[2:] == ["Normalize"],
        transformer=transformer,
        max_steps=settings.get("max_seq_length"),
    )


def _read_modules(folder: Path) -> list[tuple[str, str]]:
    """The class and the folder of each module, in order."""
    try:
        modules: Any = json.loads((folder / MODULES).read_text())
        return [(module["type"].rsplit(".", 1)[-1], module["path"]) for module in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ExportError(STAGE, f"{folder / MODULES}: expected a list of modules with type and path") from error


def _read_mode(folder: Path) -> Mode:
    settings = read_json(folder, "config.json")
    names = [name.removeprefix(PREFIX) for name, value in settings.items() if name.startswith(PREFIX) and value is True]
    if isinstance(settings.get("pooling_mode"), str):
        names.append(settings["pooling_mode"])
    if len(names) != 1 or names[0] not in MODES:
        raise ExportError(
            STAGE, f"{folder / 'config.json'} pools by {', '.join(names) or 'nothing'}, expected mean, cls or max"
        )
    return MODES[names[0]]
