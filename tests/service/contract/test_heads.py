"""Heads require outputs by name, and refuse contradictions."""

import pytest
from pydantic import ValidationError

from service.contract.heads import ImageHead, LanguageModelHead, TokenLabelsHead, ValuesHead
from service.contract.readers import SeriesReader, State, TensorsReader, TextReader
from service.contract.tensors import float32, uint8


def test_cache_tensors_have_the_expected_names_and_shapes() -> None:
    head = LanguageModelHead(layers=2, heads=3, head_size=4)
    outputs = head.outputs(TextReader(vocabulary=9))
    assert [spec.name for spec in head.inputs[2:]] == ["past_key_0", "past_value_0", "past_key_1", "past_value_1"]
    assert head.inputs[2].shape == ("batch", 3, "past", 4)
    assert outputs[0] == float32("logits", "batch", "steps", 9)
    assert outputs[1].shape == ("batch", 3, "steps", 4)


def test_token_labels_of_a_stateful_reader_give_the_next_state() -> None:
    head, state = TokenLabelsHead(labels=("a", "b")), State(layers=2, hidden=7)
    assert head.outputs(SeriesReader(channels=1)) == (float32("probabilities", "batch", "steps", 2),)
    assert head.outputs(SeriesReader(channels=1, state=state))[1:] == state.tensors("next_h", "next_c")


def test_an_image_of_free_size_has_the_axes_of_its_input() -> None:
    head = ImageHead(height=None, width=None, mode="RGB")
    assert head.outputs(TensorsReader()) == (uint8("images", "batch", "height", "width", 3),)


def test_every_value_has_one_unit() -> None:
    ValuesHead(names=("price",), units=("EUR",))
    for names, units in ((("a", "b"), ("",)), (("a", "a"), ("", ""))):
        with pytest.raises(ValidationError, match="expected one unit for each name"):
            ValuesHead(names=names, units=units)
