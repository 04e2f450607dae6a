"""A trial has items of one size, cut to that size; the trials have several batch sizes and all sizes."""

from pathlib import Path

import numpy as np

from export.sources.payload import Payload, read_payload
from export.sources.trials import free_axes, take_items, trials
from export.spec import parse_spec

HEAD = {"kind": "tensors"}


def sized(folder: Path) -> Payload:
    np.savez(folder / "e.npz", **{f"images.{i}": np.full((5, 4 + i, 6), i, np.uint8) for i in (1, 2)})
    reader = {"kind": "image", "height": [4, 8], "width": 6, "mode": "L"}
    return read_payload(parse_spec({"reader": reader, "head": HEAD}, folder / "spec.toml"), folder / "e.npz")


def test_items_are_cut_to_their_size(tmp_path: Path) -> None:
    payload = sized(tmp_path)
    sizes, inputs = take_items(payload, np.array([0, 4]))
    assert sizes == {"batch": 2, "height": 5}
    assert inputs["images"].shape == (2, 5, 6)
    assert free_axes(payload) == ["height"]


def test_trials_have_every_size(tmp_path: Path) -> None:
    seen = [(sizes["batch"], sizes["height"]) for sizes, _ in trials(sized(tmp_path))]
    assert seen == [(2, 5), (3, 5), (2, 6)]


def test_ragged_items_are_cut_to_the_longest_and_start_in_the_zero_state(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", series=np.ones((9, 5, 2)), lengths=np.arange(9) % 5 + 1)
    reader = {"kind": "series", "channels": 2, "state": {"layers": 1, "hidden": 3}}
    head = {"kind": "token-labels", "labels": 2}
    payload = read_payload(parse_spec({"reader": reader, "head": head}, tmp_path / "spec.toml"), tmp_path / "e.npz")
    sizes, inputs = take_items(payload, np.array([0, 2]))
    assert sizes == {"batch": 2, "steps": 3}
    assert inputs["series"].shape == (2, 3, 2)
    assert (inputs["h"].shape, inputs["h"].any()) == ((2, 1, 3), False)
    assert free_axes(payload) == []
