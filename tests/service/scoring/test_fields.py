"""Columns find their fields, or the message says which there are."""

import re

import pytest

from service.scoring.fields import FIELDS, check_columns, map_columns
from service.scoring.files import InputFile
from service.scoring.job import ScoringError
from service.scoring.scorers import SCORERS
from tests.service.bundles import FAMILIES


def test_every_family_has_fields_and_a_scorer() -> None:
    assert set(FIELDS) == set(SCORERS) == set(FAMILIES)


@pytest.mark.parametrize(
    ("family", "asked", "columns", "others", "found"),
    [
        ("text-classifier", {}, ["id", "text"], [], {"text": "text"}),
        ("text-classifier", {}, ["body"], [], {"text": "body"}),
        ("text-classifier", {}, ["id", "body"], ["id"], {"text": "body"}),
        ("text-classifier", {"text": "b"}, ["a", "b", "text"], [], {"text": "b"}),
        ("series-tagger", {}, ["series", "state", "x"], [], {"sequence": "series", "state": "state"}),
        ("language-model", {}, ["prompt", "seed", "top_p"], [], {"prompt": "prompt", "seed": "seed", "top_p": "top_p"}),
        ("image-generator", {}, ["n"], [], {}),
    ],
)
def test_columns_that_fit(family, asked, columns, others, found) -> None:  # type: ignore[no-untyped-def]
    assert map_columns(family, asked, columns, others=others) == found


@pytest.mark.parametrize(
    ("family", "columns", "found"),
    [
        (
            "language-model",
            ["p"],
            {"prompt": "p", **{name: name for name in ("seed", "max_tokens", "temperature", "top_k", "top_p", "stop")}},
        ),
        ("series-tagger", ["sequence", "states"], {"sequence": "sequence", "state": "states"}),
        ("series-tagger", ["sequence"], {"sequence": "sequence", "state": "state"}),
        ("text-classifier", ["text"], {"text": "text"}),
    ],
)
def test_fields_that_only_some_rows_have(family: str, columns: list[str], found: dict[str, str]) -> None:
    assert map_columns(family, {}, columns, others=(), sparse=True) == found


@pytest.mark.parametrize(
    ("asked", "columns", "message"),
    [
        ({}, ["a", "b"], "which column is the text? Say --column text=NAME; there are 'a', 'b'"),
        ({}, [], "there are none"),
        ({"text": "c"}, ["a", "b"], "no column 'c'; there are 'a', 'b'"),
        ({"image": "a"}, ["a"], "the fields of a text-classifier are text"),
    ],
)
def test_columns_that_do_not(asked: dict[str, str], columns: list[str], message: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(message)):
        map_columns("text-classifier", asked, columns, others=())


def test_a_file_without_the_column_is_named() -> None:
    file = InputFile(uri="/b.csv", name="b.csv", format="csv", size=0, stamp="")
    with pytest.raises(ScoringError, match=r"b\.csv: no column 'text'; there are 'a'"):
        check_columns(file, ["a"], ["text"])
