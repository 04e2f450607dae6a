"""The tokenizer of a folder, without the settings that would cut and pad texts: those are read and stated instead.

Invariant: for a text of any length, the content that goes into the bundle gives the ids of the folder's own tokenizer.
A text that is too long is cut at its end before the special tokens are added, so that a last [SEP] stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer

from export.errors import ExportError
from export.sources.huggingface.loading import STAGE, read_json, readable_errors, silent

TOKENIZER = "tokenizer.json"
# `transformers` writes a model_max_length of 1e30 where none is known.
UNKNOWN_LENGTH = 1 << 40


@dataclass(frozen=True, kw_only=True)
class FolderTokenizer:
    """`content` is tokenizer.json without truncation and padding; `max_steps` the most tokens of a text, if known."""

    content: str
    max_steps: int | None

    def encode(self, texts: Sequence[str], max_steps: int) -> list[list[int]]:
        """The ids of each text, cut to `max_steps` with its special tokens."""
        tokenizer = Tokenizer.from_str(self.content)
        tokenizer.enable_truncation(max_steps)
        return [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]


def read_tokenizer(folder: Path, *, cuts: bool) -> FolderTokenizer:
    """The folder's tokenizer. Raises ExportError if there is none that the service can run, or if it cuts at the left.

    `cuts` tells whether texts that are too long may be cut, as those of encoders.
    """
    settings, saved = read_json(folder, "tokenizer_config.json"), read_json(folder, TOKENIZER)
    if not saved:
        raise ExportError(
            STAGE,
            f"{folder} holds no {TOKENIZER}, expected that of a fast tokenizer, which "
            "AutoTokenizer.from_pretrained(folder).save_pretrained(folder) writes",
        )
    truncation: dict[str, Any] = saved.get("truncation") or {}
    sides = (truncation.get("direction", "Right"), settings.get("truncation_side", "right"))
    if cuts and any(side.lower() != "right" for side in sides):
        raise ExportError(
            STAGE, f"{folder}: the tokenizer cuts long texts at the left, expected truncation_side to be right"
        )
    with silent(), readable_errors(folder):
        loaded: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        backend = Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    lengths = (truncation.get("max_length"), settings.get("model_max_length"))
    known = [int(length) for length in lengths if length is not None and 0 < length < UNKNOWN_LENGTH]
    return FolderTokenizer(content=backend.to_str(), max_steps=min(known, default=None))
