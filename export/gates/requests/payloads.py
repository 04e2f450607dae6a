"""Items of a request as clients send them, each with the inputs that the model must get.

The inputs come from the examples and from the tokenizer of the source, never from what the bundle holds: the service
must decode a picture, tokenise a text and encode a category as it was done here.
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image
from tokenizers import Encoding, Tokenizer

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.cases import Array
from export.gates.inputs.items import fit, item_sizes
from export.gates.inputs.sizes import smallest_sizes
from export.source import Source
from service.bundle import Tensors
from service.contract.readers import ImageReader, Resize, TableReader
from service.contract.tensors import from_rows
from service.manifest import Manifest

# A picture that is scaled has another size than the model takes: every second larger, every second smaller in one axis.
SCALES = ((1.5, 1.25), (1.0, 1.75), (2.0, 0.75))
# Of the tensors of one request.
MAX_ELEMENTS = 100_000
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """`body` is what a client sends; `inputs` have no batch axis. `text` and `encoding` are those of a text."""

    body: Any
    inputs: Tensors
    text: str = ""
    encoding: Encoding | None = None


def item(candidate: Candidate, number: int) -> Item:
    """The test item of this number as a client sends it. Raises ExportError for a text without a tokenizer."""
    source, manifest = candidate.source, candidate.manifest
    return BY_READER[manifest.reader.kind](source, manifest, number % len(source.examples), number)


def tensors_body(candidate: Candidate, numbers: Sequence[int]) -> tuple[dict[str, Any], list[Tensors]]:
    """The tensors of a request with these test items as rows, as nested lists, and the inputs of each row.

    All rows have the size of the first item, or the smallest if that is large.
    """
    source, manifest = candidate.source, candidate.manifest
    rows = [_row(source, manifest, number % len(source.examples)) for number in numbers]
    elements = sum(int(np.prod(array.shape)) for array in rows[0].values())
    if len(rows) > 1 or elements > MAX_ELEMENTS:
        sizes = smallest_sizes(manifest)
        for row in rows:
            for spec in manifest.inputs:
                shape = tuple(sizes[axis] if isinstance(axis, str) else axis for axis in spec.row_shape)
                row[spec.name] = fit(row[spec.name], shape)
        elements = sum(int(np.prod(array.shape)) for array in rows[0].values())
        rows = rows[: max(1, MAX_ELEMENTS // max(1, elements))]
    body = {spec.name: from_rows(np.stack([row[spec.name] for row in rows]), spec).tolist() for spec in manifest.inputs}
    return body, list(rows)


def encode_png(image: Array) -> str:
    """A picture, uint8 [height, width(, 3)], as a PNG in base64."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def scaled(picture: Array, resize: Resize) -> Array:
    """The picture as Pillow scales it and as the centre is cut out of it."""
    image = Image.fromarray(picture)
    if resize.size is not None:
        height, width = resize.size
    else:
        short = resize.shortest_edge or 0
        height, width = picture.shape[:2]
        height, width = (
            (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
        )
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), FILTERS[resize.resample])
    pixels = np.asarray(image)
    if resize.crop is not None:
        top, left = (round((size - crop) / 2) for size, crop in zip((height, width), resize.crop, strict=True))
        pixels = pixels[top : top + resize.crop[0], left : left + resize.crop[1]]
    return pixels


def _row(source: Source, manifest: Manifest, example: int) -> dict[str, Array]:
    """An example at its own size."""
    sizes, row = item_sizes(source, manifest, example), dict[str, Array]()
    for spec in manifest.inputs:
        values = np.asarray(source.examples.inputs[spec.name][example])
        row[spec.name] = values[tuple(slice(sizes[a] if isinstance(a, str) else None) for a in spec.row_shape)]
    return row


def _picture(source: Source, manifest: Manifest, example: int, number: int) -> Item:
    reader = source.reader
    assert isinstance(reader, ImageReader)
    pixels = np.ascontiguousarray(_row(source, manifest, example)["images"])
    if reader.resize is not None:
        high, wide = SCALES[number % len(SCALES)]
        shape = max(1, int(pixels.shape[0] * high)), max(1, int(pixels.shape[1] * wide))
        picture = np.ascontiguousarray(fit(pixels, (*shape, *pixels.shape[2:])))
        return Item(body=encode_png(picture), inputs={"images": scaled(picture, reader.resize)})
    body = pixels.tolist() if number % 2 and pixels.size <= MAX_ELEMENTS else encode_png(pixels)
    return Item(body=body, inputs={"images": pixels})


def _series(source: Source, manifest: Manifest, example: int, _: int) -> Item:
    series = source.examples.inputs["series"][example, : item_sizes(source, manifest, example)["steps"]]
    return Item(body=series.tolist(), inputs={"series": series, "lengths": np.array(len(series))})


def _text(source: Source, manifest: Manifest, example: int, _: int) -> Item:
    if source.tokenizer is None:
        raise ExportError("requests", "a model of texts needs a tokenizer, its source has none")
    tokenizer = Tokenizer.from_str(source.tokenizer)
    ids = source.examples.inputs["ids"][example, : item_sizes(source, manifest, example)["steps"]]
    if source.examples.texts:
        text = source.examples.texts[example]
        encoding = tokenizer.encode(text)
    else:
        # The text of the tokens may have other tokens; what the source's tokenizer makes of it counts.
        text = tokenizer.decode(ids.tolist())
        encoding = tokenizer.encode(text)
        longest = manifest.limits.max_steps or 1
        while len(encoding.ids) > longest:
            text = text[: len(text) // 2]
            encoding = tokenizer.encode(text)
        ids = np.array(encoding.ids, np.int64)
    return Item(body=text, inputs={"ids": ids, "lengths": np.array(len(ids))}, text=text, encoding=encoding)


def _table(source: Source, manifest: Manifest, example: int, _: int) -> Item:
    reader = source.reader
    assert isinstance(reader, TableReader)
    row, body = _row(source, manifest, example), dict[str, Any]()
    numbers = {column.name: i for i, column in enumerate(reader.numbers)}
    categories = {column.name: i for i, column in enumerate(reader.categories)}
    for column in reader.columns:
        if column.kind == "number":
            body[column.name] = float(row["numbers"][numbers[column.name]])
        else:
            body[column.name] = column.values[int(row["categories"][categories[column.name]])]
    return Item(body=body, inputs=row)


BY_READER: dict[str, Callable[[Source, Manifest, int, int], Item]] = {
    "image": _picture,
    "series": _series,
    "text": _text,
    "table": _table,
}
FIELDS = {"image": "images", "series": "sequences", "text": "texts", "table": "rows"}
