"""Columns are mapped to fields, or the error lists the columns."""

import re

import pytest

from service.manifest import Manifest
from service.scoring.input.fields import check_columns, fields_of, map_columns
from service.scoring.input.files import InputFile
from service.scoring.job import ScoringError
from tests.service.bundles import FAMILIES, PAIRS
from tests.service.engine.fakes import manifest

MANIFESTS = {pair: manifest(family) for family, pair in PAIRS.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_model_has_fields(family: str) -> None:
    assert fields_of(manifest(family))


def table() -> Manifest:
    columns = [{"kind": "number", "name": "age"}, {"kind": "category", "name": "city", "values": ("Kobe", "Nara")}]
    inputs = [
        {"name": "numbers", "dtype": "float32", "shape": ("batch", 1)},
        {"name": "categories", "dtype": "int64", "shape": ("batch", 1)},
    ]
    return manifest("image-classifier", reader={"kind": "table", "columns": columns}, inputs=inputs)


def test_the_fields_of_a_table_are_its_columns_by_name() -> None:
    assert map_columns(table(), {}, ["id", "city", "age"], reserved=["id"]) == {"age": "age", "city": "city"}
    assert map_columns(table(), {"age": "years"}, ["years", "city"], reserved=()) == {"age": "years", "city": "city"}
    with pytest.raises(ScoringError, match="cannot tell which column holds the city: pass --column city=NAME"):
        map_columns(table(), {}, ["age", "town"], reserved=())


@pytest.mark.parametrize(
    ("pair", "requested", "columns", "reserved", "mapped"),
    [
        ("text -> labels", {}, ["id", "text"], [], {"text": "text"}),
        ("text -> labels", {}, ["body"], [], {"text": "body"}),
        ("text -> labels", {}, ["id", "body"], ["id"], {"text": "body"}),
        ("text -> labels", {"text": "b"}, ["a", "b", "text"], [], {"text": "b"}),
        ("series -> token-labels", {}, ["series", "state", "x"], [], {"sequence": "series", "state": "state"}),
        (
            "text -> language-model",
            {},
            ["prompt", "seed", "top_p"],
            [],
            {"prompt": "prompt", "seed": "seed", "top_p": "top_p"},
        ),
        ("tensors -> image", {}, ["n"], [], {}),
    ],
)
def test_columns_are_mapped_to_fields(pair, requested, columns, reserved, mapped) -> None:  # type: ignore[no-untyped-def]
    assert map_columns(MANIFESTS[pair], requested, columns, reserved=reserved) == mapped


@pytest.mark.parametrize(
    ("pair", "columns", "mapped"),
    [
        (
            "text -> language-model",
            ["p"],
            {"prompt": "p", **{name: name for name in ("seed", "max_tokens", "temperature", "top_k", "top_p", "stop")}},
        ),
        ("series -> token-labels", ["sequence", "states"], {"sequence": "sequence", "state": "states"}),
        ("series -> token-labels", ["sequence"], {"sequence": "sequence", "state": "state"}),
        ("text -> labels", ["text"], {"text": "text"}),
    ],
)
def test_sparse_fields_take_the_column_of_their_name(pair: str, columns: list[str], mapped: dict[str, str]) -> None:
    assert map_columns(MANIFESTS[pair], {}, columns, reserved=(), sparse=True) == mapped


@pytest.mark.parametrize(
    ("requested", "columns", "message"),
    [
        ({}, ["a", "b"], "cannot tell which column holds the text: pass --column text=NAME; columns: 'a', 'b'"),
        ({}, [], "columns: none"),
        ({"text": "c"}, ["a", "b"], "no column 'c'; available: 'a', 'b'"),
        ({"image": "a"}, ["a"], "the fields of a model text -> labels are text"),
    ],
)
def test_unmappable_columns_are_an_error(requested: dict[str, str], columns: list[str], message: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(message)):
        map_columns(MANIFESTS["text -> labels"], requested, columns, reserved=())


def test_missing_column_error_names_the_file() -> None:
    file = InputFile(uri="/b.csv", name="b.csv", format="csv", size=0, fingerprint="")
    with pytest.raises(ScoringError, match=r"b\.csv: no column 'text'; available: 'a'"):
        check_columns(file, ["a"], ["text"])
