"""Values between layers: which steps of a row are valid."""

import torch

from export.sources.keras.layers.values import PerStep, Value, ValueSpec, axis_from_end

X = torch.zeros(2, 3, 4)
MASK = torch.tensor([[True, False, True], [True, True, True]])


def test_all_steps_are_valid_without_lengths_and_mask() -> None:
    assert Value(x=X).valid_steps() is None


def test_valid_steps_are_those_of_the_length_and_of_the_mask() -> None:
    value = Value(x=X, lengths=torch.tensor([3, 1]), mask=MASK)
    valid = value.valid_steps()
    assert valid is not None
    assert valid.tolist() == [[True, False, True], [True, False, False]]


def test_mask_goes_on_if_the_layer_keeps_it() -> None:
    value = Value(x=X, lengths=torch.tensor([3, 1]), mask=MASK)
    for keeps_mask in (False, True):
        result = PerStep(torch.nn.Identity(), keeps_mask=keeps_mask)(value)
        assert result.lengths is value.lengths
        assert (result.mask is MASK) == keeps_mask


def test_axis_from_end() -> None:
    spec = ValueSpec(shape=(None, 3, 4))
    assert [axis_from_end(axis, spec) for axis in (1, 2, -1)] == [-2, -1, -1]
