"""Examples for the gates: those of a file, or texts and pictures that are made from a seed and say so on the card.

Made texts consist of the tokenizer's own words, made pictures of gradients and noise. They exercise a graph, and say
nothing about the quality of the model.

Shapes: N items, T steps.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from tokenizers import Tokenizer

from export.errors import ExportError
from export.sources.huggingface.loading import STAGE
from export.sources.huggingface.tokenizer import FolderTokenizer
from service.contract.readers import ImageReader
from service.tasks.codecs.picture_size import resize_image
from training.recipe import IGNORE_INDEX, Split

NUM_TEXTS, NUM_PICTURES = 64, 48
# The words of made texts are drawn from this many tokens.
MAX_WORDS = 4096
# The texts of a language model are cut into windows of at most this many tokens.
MAX_WINDOW, MAX_WINDOWS = 128, 32
PICTURES = {".png", ".jpg", ".jpeg"}


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where examples come from, for the card; `sha256` is that of their file, if they have one."""

    name: str
    note: str
    sha256: str | None = None


def read_texts(path: Path | None, tokenizer: FolderTokenizer, max_steps: int) -> tuple[tuple[str, ...], Origin]:
    """The texts of a file of JSON lines, or texts that are made of the tokenizer's words. Raises ExportError."""
    if path is None:
        return _made_texts(tokenizer, max_steps), Origin(
            name="made sentences",
            note="The folder holds no data. The gates used sentences that export made of the tokenizer's own words.",
        )
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(STAGE, f"{path}: expected a file of JSON lines: {error}") from error
    texts = tuple(_text_of(line, path, number) for number, line in enumerate(lines, 1) if line.strip())
    if not texts:
        raise ExportError(STAGE, f'{path} holds no line, expected JSON lines such as {{"text": "..."}}')
    return texts, _origin(path, f"{len(texts)} texts", path.read_bytes())


def text_split(texts: Sequence[str], tokenizer: FolderTokenizer, max_steps: int) -> Split:
    """Ids [N, T] and lengths of texts, cut to `max_steps` with their special tokens."""
    rows = tokenizer.encode(texts, max_steps)
    if empty := [text for text, row in zip(texts, rows, strict=True) if not row]:
        raise ExportError(STAGE, f"the tokenizer gives no token for the example {empty[0][:60]!r}")
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for padded, row in zip(ids, rows, strict=True):
        padded[: len(row)] = row
    lengths = np.array([len(row) for row in rows], np.int64)
    return Split(inputs={"ids": ids, "lengths": lengths}, targets=np.zeros(0, np.int64), texts=tuple(texts))


def window_split(texts: Sequence[str], tokenizer: FolderTokenizer, context: int) -> Split:
    """Windows [N, T] of the tokens of all texts as one, a line each; the target of a token is the next one."""
    encoder, window, text = Tokenizer.from_str(tokenizer.content), min(context, MAX_WINDOW), "\n".join(texts)
    encoding = encoder.encode(text)
    if len(encoding.ids) > (limit := MAX_WINDOWS * window):
        text = text[: encoding.offsets[limit - 1][1]]
        encoding = encoder.encode(text)
    stream = np.array(encoding.ids, np.int64)
    if not stream.size:
        raise ExportError(STAGE, "the tokenizer gives no token for the example texts")
    num_windows = -(-len(stream) // window)
    padded = np.full(num_windows * window, IGNORE_INDEX, np.int64)
    padded[: len(stream)] = stream
    inputs = np.concatenate([stream[-1:], np.where(padded == IGNORE_INDEX, stream[0], padded)[:-1]])
    return Split(
        inputs={"ids": inputs.reshape(num_windows, window)},
        targets=padded.reshape(num_windows, window),
        texts=(text,),
    )


def read_pictures(path: Path | None, reader: ImageReader) -> tuple[Split, Origin]:
    """The pictures of a folder, resized as the reader says, or made ones. Raises ExportError."""
    assert reader.height is not None
    assert reader.width is not None
    if path is None:
        images, origin = (
            _made_pictures(reader),
            Origin(
                name="made pictures",
                note="The folder holds no data. The gates used pictures of gradients and noise that export made.",
            ),
        )
    else:
        files = sorted(file for file in path.glob("*") if file.suffix.lower() in PICTURES) if path.is_dir() else [path]
        if not files:
            raise ExportError(STAGE, f"{path} holds no picture, expected PNG or JPEG files")
        images = np.stack([_read_picture(file, reader) for file in files])
        origin = _origin(path, f"{len(files)} pictures", b"".join(file.read_bytes() for file in files))
    return Split(inputs={"images": images}, targets=np.zeros(0, np.int64)), origin


def _origin(path: Path, count: str, content: bytes) -> Origin:
    note = f"The gates used the {count} of {path.name}."
    return Origin(name=path.name, note=note, sha256=hashlib.sha256(content).hexdigest())


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        text = json.loads(line)["text"]
    except (ValueError, KeyError, TypeError) as error:
        raise ExportError(STAGE, f'{path}, line {number}: expected a JSON object with "text"') from error
    if not isinstance(text, str) or not text:
        raise ExportError(STAGE, f"{path}, line {number}: text is {text!r}, expected a text that is not empty")
    return text


def _made_texts(tokenizer: FolderTokenizer, max_steps: int) -> tuple[str, ...]:
    """Sentences of the tokenizer's words, of one word up to as many tokens as the model takes."""
    rng = np.random.default_rng(0)
    words = _words(Tokenizer.from_str(tokenizer.content), rng)
    counts = np.unique(np.geomspace(1, max(2, max_steps), NUM_TEXTS).astype(int))
    texts = []
    for number in range(NUM_TEXTS):
        text = " ".join(rng.choice(words, counts[number % len(counts)]))
        # A word may be several tokens, and a text has special tokens.
        while len(tokenizer.encode([text], 1 << 20)[0]) > max_steps and " " in text:
            shorter = text.split(" ")
            text = " ".join(shorter[: max(1, len(shorter) * 9 // 10)])
        texts.append(text)
    return tuple(dict.fromkeys(texts))


def _words(tokenizer: Tokenizer, rng: np.random.Generator) -> list[str]:
    """Texts of single tokens, letters and digits if the tokenizer has such."""
    ids = rng.permutation(tokenizer.get_vocab_size())[:MAX_WORDS].tolist()
    texts = {tokenizer.decode([i], skip_special_tokens=True).strip() for i in ids}
    printable = sorted(text for text in texts if text.isprintable() and text and "\ufffd" not in text)
    return [text for text in printable if text.isalnum()] or printable or ["a"]


def _read_picture(file: Path, reader: ImageReader) -> np.ndarray:
    try:
        with Image.open(file) as opened:
            # The service turns pictures as well.
            picture = ImageOps.exif_transpose(opened).convert(reader.mode)
    except OSError as error:
        raise ExportError(STAGE, f"{file}: no picture that Pillow reads: {error}") from error
    picture = resize_image(picture, reader, "")
    if picture.size != (reader.width, reader.height):
        raise ExportError(
            STAGE, f"{file} is {picture.size[0]}x{picture.size[1]}, the model takes {reader.width}x{reader.height}"
        )
    return np.array(picture)


def _made_pictures(reader: ImageReader) -> np.ndarray:
    """Gradients in all directions with noise on them, of other contrast and brightness in each channel."""
    rng = np.random.default_rng(0)
    assert reader.height is not None
    assert reader.width is not None
    channels = 3 if reader.mode == "RGB" else 1
    y_H1, x_W = np.linspace(-1, 1, reader.height)[:, None], np.linspace(-1, 1, reader.width)
    shape = (NUM_PICTURES, 1, 1, channels)
    slope_y, slope_x, curve = (rng.normal(0, 60, shape) for _ in range(3))
    values = rng.uniform(40, 215, shape) + slope_y * y_H1[..., None] + slope_x * x_W[:, None]
    values = values + curve * np.sin(3 * (y_H1 * x_W))[..., None]
    values = values + rng.normal(0, 1, values.shape) * rng.uniform(0, 50, (NUM_PICTURES, 1, 1, 1))
    pictures = values.clip(0, 255).astype(np.uint8)
    return pictures if channels == 3 else pictures[..., 0]
