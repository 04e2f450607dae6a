"""Readers determine the inputs of a graph and refuse contradictions."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.contract.readers import (
    CategoryColumn,
    ImageReader,
    ImageSpec,
    NumberColumn,
    Reader,
    Resize,
    SeriesReader,
    State,
    TableReader,
)
from service.contract.tensors import float32, int64, uint8


def test_colour_images_have_a_last_axis_of_three() -> None:
    assert ImageSpec(height=2, width=3, mode="L").shape == (2, 3)
    assert ImageSpec(height=2, width=3, mode="RGB").fixed_shape == (2, 3, 3)


def test_a_free_height_is_an_axis() -> None:
    reader = ImageReader(height=None, width=8, mode="RGB")
    assert reader.inputs == (uint8("images", "batch", "height", 8, 3),)


def test_a_stateful_series_model_takes_its_state() -> None:
    reader = SeriesReader(channels=5, state=State(layers=2, hidden=7))
    assert reader.inputs[2:] == (float32("h", "batch", 2, 7), float32("c", "batch", 2, 7))
    assert SeriesReader(channels=5).inputs == reader.inputs[:2]


def test_numbers_and_categories_of_a_table_are_two_tensors() -> None:
    age, city = NumberColumn(name="age"), CategoryColumn(name="city", values=("Kobe", "Nara"))
    assert TableReader(columns=(age, city, age.model_copy(update={"name": "height"}))).inputs == (
        float32("numbers", "batch", 2),
        int64("categories", "batch", 1),
    )
    assert TableReader(columns=(city,)).inputs == (int64("categories", "batch", 1),)


IMAGE = {"kind": "image", "height": 224, "width": 224, "mode": "RGB"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "sound"}, "does not match any of the expected tags"),
        ({**IMAGE, "resize": {}}, "resize needs either size or shortest_edge"),
        ({**IMAGE, "resize": {"size": (9, 9), "shortest_edge": 9}}, "resize needs either size or shortest_edge"),
        ({**IMAGE, "resize": {"shortest_edge": 256}}, "needs a crop"),
        ({**IMAGE, "resize": {"size": (9, 9), "crop": (9, 10)}}, r"resize crops \[9, 10\] out of \[9, 9\]"),
        ({**IMAGE, "resize": {"size": (224, 223)}}, r"resize gives \[224, 223\], the model takes \[224, 224\]"),
        ({"kind": "table", "columns": ()}, "at least 1 item"),
        (
            {"kind": "table", "columns": [{"kind": "number", "name": "a"}, {"kind": "number", "name": "a"}]},
            "two columns have the name 'a'",
        ),
        ({"kind": "table", "columns": [{"kind": "number", "name": "a", "low": 2, "high": 1}]}, "low 2 is above high 1"),
        ({"kind": "table", "columns": [{"kind": "category", "name": "a", "values": ("x", "x")}]}, "has a value twice"),
    ],
)
def test_contradictions_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TypeAdapter[Reader](Reader).validate_python(fields)


def test_the_crop_is_the_size_of_the_picture() -> None:
    resize = Resize(shortest_edge=256, crop=(224, 200))
    assert resize.result == (224, 200)
    assert Resize(size=(5, 6)).result == (5, 6)
    assert ImageReader(height=224, width=200, mode="RGB", resize=resize).inputs[0].shape == ("batch", 224, 200, 3)
