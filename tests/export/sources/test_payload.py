"""Examples become the canonical items of their reader, with bounds for every free axis."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from export.sources.payload import Payload, read_payload, read_tokenizer
from export.spec import parse_spec
from service.contract.tensors import float32
from service.manifest import AxisRange

LABELS = {"kind": "labels", "labels": 2}
RNG = np.random.default_rng(0)
COLUMNS = [
    {"name": "age", "kind": "number", "low": 0, "high": 99},
    {"name": "city", "kind": "category", "values": ["a", "b"]},
]
FREE = {"kind": "tensors", "inputs": [{"name": "x", "dtype": "float32", "shape": [2, "batch", "points"]}]}


def payload(folder: Path, reader: dict[str, Any], arrays: dict[str, Any], **tables: Any) -> Payload:
    np.savez(folder / "e.npz", **arrays)
    spec = parse_spec({"reader": reader, "head": LABELS, **tables}, folder / "spec.toml")
    return read_payload(spec, folder / "e.npz")


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "one": 1, "two": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_padding(length=7)
    tokenizer.enable_truncation(2)
    tokenizer.save(str(folder / "tokenizer.json"))


def test_pictures_of_several_sizes_are_padded_and_keep_their_sizes(tmp_path: Path) -> None:
    groups = {f"images.{i}": RNG.integers(0, 256, (5, 4 + i, 6, 3), dtype=np.uint8) for i in range(2)}
    read = payload(tmp_path, {"kind": "image", "height": [4, 8], "width": 6}, groups)
    assert read.split.inputs["images"].shape == (10, 5, 6, 3)
    assert read.split.inputs["height"].tolist() == [4] * 5 + [5] * 5
    assert not read.split.inputs["images"][:5, 4].any()
    assert read.limits.axes == {"height": AxisRange(min=4, max=8)}
    assert read.inputs[0].shape == ("batch", "height", 6, 3)


def test_the_longest_series_is_the_limit(tmp_path: Path) -> None:
    series, lengths = RNG.normal(size=(9, 5, 2)), RNG.permutation(9) % 5 + 1
    read = payload(tmp_path, {"kind": "series", "channels": 2}, {"series": series, "lengths": lengths})
    assert read.split.inputs["series"].dtype == np.float32
    assert read.limits.max_steps == 5


def test_texts_are_tokenized_without_the_saved_settings(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    texts = np.array(["one", "one two one", "two two"] * 3)
    read = payload(tmp_path, {"kind": "text"}, {"texts": texts, "y": np.zeros(9, int)})
    assert read.split.inputs["ids"][1].tolist() == [1, 2, 1]
    assert read.split.inputs["lengths"][:3].tolist() == [1, 3, 2]
    assert (getattr(read.reader, "vocabulary", None), read.split.texts) == (3, tuple(texts.tolist()))
    content = json.loads(read_tokenizer(tmp_path / "tokenizer.json"))
    assert content["padding"] is content["truncation"] is None


def test_a_table_has_indices_of_its_values(tmp_path: Path) -> None:
    arrays = {"numbers": np.arange(9.0)[:, None], "categories": np.array(["a", "b", "b"] * 3)[:, None]}
    read = payload(tmp_path, {"kind": "table", "columns": COLUMNS}, arrays)
    assert read.split.inputs["categories"][:3, 0].tolist() == [0, 1, 1]
    assert read.split.inputs["numbers"].dtype == np.float32


def test_tensors_are_read_off_the_examples(tmp_path: Path) -> None:
    read = payload(tmp_path, {"kind": "tensors"}, {"a": np.ones((9, 4), np.float32), "b": np.ones(9, np.int64)})
    assert [(spec.name, spec.dtype, spec.shape) for spec in read.inputs] == [
        ("a", "float32", ("batch", 4)),
        ("b", "int64", ("batch",)),
    ]


def test_rows_of_tensors_stand_in_front_wherever_the_batch_axis_is(tmp_path: Path) -> None:
    groups = {f"x.{i}": RNG.normal(size=(6, 2, 3 + i)).astype(np.float32) for i in range(2)}
    read = payload(tmp_path, FREE, groups, limits={"axes": {"points": [1, 9]}})
    assert read.inputs == (float32("x", 2, "batch", "points"),)
    assert read.split.inputs["points"].tolist() == [3] * 6 + [4] * 6


IMAGES = RNG.integers(0, 256, (9, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("reader", "arrays", "sentence"),
    [
        ({"kind": "image", "height": 4, "width": 6}, {"x": IMAGES / 255}, "images are float64, expected the pixels"),
        (
            {"kind": "image", "height": 4, "width": 6},
            {"x": IMAGES.transpose(0, 3, 1, 2)},
            r"images have the axes \[9, 3, 4, 6\], expected \[items, height, width, 3\]",
        ),
        (
            {"kind": "image", "height": [2, 8], "width": 6},
            {"x": IMAGES},
            "items of the one size 4 along the free axis 'height'; expected two sizes",
        ),
        ({"kind": "series", "channels": 3}, {"series": np.ones((9, 5, 2))}, r"expected numbers \[items, steps, 3\]"),
        (
            {"kind": "series", "channels": 2},
            {"series": np.ones((9, 5, 2)), "lengths": np.full(9, 6)},
            "lengths are not from 1 to 5",
        ),
        (
            {"kind": "series", "channels": 2},
            {"series": np.ones((9, 5, 2))},
            "the one size 5 along the free axis 'steps'",
        ),
        (
            {"kind": "table", "columns": COLUMNS},
            {"numbers": np.ones((9, 2)), "categories": np.zeros((9, 1), int)},
            r"numbers have the axes \[9, 2\], expected \[items, 1\]",
        ),
        (
            {"kind": "table", "columns": COLUMNS},
            {"numbers": np.ones((9, 1)), "categories": np.array(["a"] * 8 + ["z"])[:, None]},
            "column 'city' has the value 'z', expected one of a, b",
        ),
        (
            {"kind": "series", "channels": 2},
            {"series": np.ones((9, 5, 2)), "lengths": np.full(9, 1.5)},
            "lengths are not from 1 to 5",
        ),
        (
            {"kind": "series", "channels": 2},
            {"series": np.full((9, 5, 2), 1e300)},
            "series have a number beyond float32",
        ),
        (
            {"kind": "table", "columns": COLUMNS[:1]},
            {"numbers": np.full((9, 1), "a")},
            "numbers are <U1, expected numbers",
        ),
        ({"kind": "tensors"}, {"x": np.ones(9, complex)}, "x is complex128, expected one of bool, uint8"),
        ({"kind": "tensors"}, {"x": np.array(["a"] * 9)}, "x is <U1, expected one of bool, uint8"),
        (FREE, {"x": np.ones((9, 2, 4))}, r"x is float64 \[9, 2, 4\], the spec says float32"),
        (FREE, {"x": np.ones((9, 2, 4), np.float32)}, "the one size 4 along the free axis 'points'"),
        (
            FREE,
            {"x": np.ones((9, 2, 4), np.float32), "x.1": np.ones((9, 2, 5), np.float32)},
            r"the axis 'points' has no bounds; say \[limits.axes\] points = \[4, 5\]",
        ),
    ],
)
def test_examples_that_do_not_fit(
    reader: dict[str, Any], arrays: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        payload(tmp_path, reader, arrays)
    assert "\n" not in str(error.value)


def test_a_text_without_tokens_and_other_types_are_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    with pytest.raises(ValueError, match="text 8 has no tokens: ' '"):
        payload(tmp_path, {"kind": "text"}, {"texts": np.array(["one"] * 8 + [" "])})
    with pytest.raises(ValueError, match="texts are int64, expected an array of str"):
        payload(tmp_path, {"kind": "text"}, {"texts": np.arange(9)})


@pytest.mark.parametrize(
    ("height", "limits", "sentence"),
    [
        ([4, 8], {"multiple_of": {"height": 4}}, None),
        ([3, 8], {"multiple_of": {"height": 4}}, r"its bounds \[3, 8\] are multiples of it, too; say \[4, 8\]"),
        ([4, 9], {"multiple_of": {"height": 8}}, r"its bounds \[4, 9\] are multiples of it, too; say \[8, 8\]"),
        ([4, 8], {"multiple_of": {"heigth": 4}}, r"\[limits.multiple_of\] has 'heigth'; .* bounds 'height'"),
        ([1, 9], {"multiple_of": {"height": 1}}, None),
        ([3, 9], {"multiple_of": {"height": 3}}, "holds an item of the height 4, the spec says 3 to 9 in multiples"),
        ([4, 8], {"axes": {"depth": [1, 2]}}, r"\[limits.axes\] has 'depth'; the model has 'height' free"),
    ],
)
def test_multiples_of_a_free_axis(height: list[int], limits: Any, sentence: str | None, tmp_path: Path) -> None:
    reader = {"kind": "image", "height": height, "width": 6, "mode": "L"}
    arrays = {"images": IMAGES[..., 0], "images.1": IMAGES[:, :, :, 0].repeat(2, axis=1)}
    if sentence is None:
        read = payload(tmp_path, reader, arrays, limits=limits)
        assert read.limits.axes["height"].multiple_of == limits["multiple_of"]["height"]
    else:
        with pytest.raises(ValueError, match=sentence):
            payload(tmp_path, reader, arrays, limits=limits)
