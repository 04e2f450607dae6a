"""A trial has items of one size, cut to that size; the trials have several batch sizes and all sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.sources.payload import Payload, read_payload
from export.sources.trials import check_padding, check_sizes, free_axes, take_items, trials
from export.spec import parse_spec
from service.contract.tensors import float32

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


OUTPUTS = (float32("sums", "batch", "height"),)


def halving(inputs: Any, *, multiple: int, fails: bool) -> dict[str, Any]:
    """Sums of rows by a model that halves the height and doubles it again."""
    height = inputs["images"].shape[1]
    if height % multiple and fails:
        raise RuntimeError(f"sizes of tensors\nmust match: {height}")
    sums = inputs["images"].sum(2, dtype=np.float32)
    return {"sums": sums[:, : height // multiple * multiple]}


@pytest.mark.parametrize("fails", [True, False])
def test_a_model_of_multiples_is_refused_with_what_to_declare(fails: bool, tmp_path: Path) -> None:
    """Whether it raises or gives another size."""
    np.savez(tmp_path / "e.npz", **{f"images.{i}": np.full((5, 8 * i, 6), i, np.uint8) for i in (1, 2)})
    reader = {"kind": "image", "height": [8, 24], "width": 6, "mode": "L"}

    def check(multiple: int, **limits: Any) -> None:
        spec = parse_spec({"reader": reader, "head": HEAD, "limits": limits}, tmp_path / "spec.toml")
        payload = read_payload(spec, tmp_path / "e.npz")
        check_sizes(payload, OUTPUTS, lambda inputs: halving(inputs, multiple=multiple, fails=fails))

    check(1)
    check(4, multiple_of={"height": 4})
    reason = "sizes of tensors must match: 9" if fails else r"sums has the axes \[8\], expected \[9\]"
    with pytest.raises(ValueError, match=rf"fails at the height 9, .* say \[limits.multiple_of\] height = 4: {reason}"):
        check(4)
    with pytest.raises(ValueError, match=r"fails at the height 12, .* say \[limits.multiple_of\] height = 8: "):
        check(8, multiple_of={"height": 4})
    with pytest.raises(
        ValueError, match=r"the height 8, bound it in \[limits.axes\] to what it takes; examples have 8"
    ):
        check(97)


def test_a_model_that_drops_the_padding_is_told_of_total_length(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "e.npz", series=rng.normal(size=(9, 5, 2)), lengths=np.arange(9) % 5 + 1)
    spec = {"reader": {"kind": "series", "channels": 2}, "head": {"kind": "token-labels", "labels": 2}}
    payload = read_payload(parse_spec(spec, tmp_path / "spec.toml"), tmp_path / "e.npz")
    outputs = (float32("probabilities", "batch", "steps", 2),)

    def steps(inputs: Any, *, total: bool) -> dict[str, Any]:
        length = inputs["series"].shape[1] if total else int(inputs["lengths"].max())
        assert not inputs["series"][:, inputs["lengths"].max() :].any()
        return {"probabilities": inputs["series"][:, :length]}

    check_padding(payload, outputs, lambda inputs: steps(inputs, total=True))
    # One answer an item has no padding.
    check_padding(payload, (float32("probabilities", "batch", 2),), lambda inputs: steps(inputs, total=False))
    with pytest.raises(
        ValueError, match=r"no row has all 5 steps: .* \[4, 2\], expected \[5, 2\]; .* total_length=x.shape"
    ):
        check_padding(payload, outputs, lambda inputs: steps(inputs, total=False))
