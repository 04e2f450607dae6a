"""Golden files are read by the names of the graph or of the reader; what is missing or unknown is named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from export.sources.onnx_file.goldens import Goldens, check_count, read_goldens
from export.sources.onnx_file.graph import Value

OUTPUTS = [Value(name="y", dtype="float32", axes=(None, 1)), Value(name="y.1", dtype="float32", axes=(None, 1))]
ONE = np.ones((2, 1), np.float32)


def read(folder: Path, arrays: dict[str, Any], **words: Any) -> Goldens:
    path = folder / "golden.safetensors"
    save_file(arrays, path)
    return read_goldens(path, ["x"], words.get("reader", {}), OUTPUTS)


def test_groups_are_cases(tmp_path: Path) -> None:
    goldens = read(tmp_path, {"x": ONE, "y": ONE, "x.2": ONE * 2, "y.2": ONE * 3, "targets": np.array([1, 2])})
    assert goldens.names == ("x",)
    first, second = goldens.cases
    assert (first.number, second.number) == (0, 2)
    assert second.inputs["x"].max() == 2
    assert second.outputs["y"].max() == 3
    assert first.targets is not None
    assert second.targets is None


def test_cases_are_read_as_bundles_name_them(tmp_path: Path) -> None:
    goldens = read(tmp_path, {"0/in/x": ONE, "0/out/y": ONE, "1/in/x": ONE, "1/out/y": ONE})
    assert [case.number for case in goldens.cases] == [0, 1]


def test_name_of_the_graph_that_looks_like_a_group_is_a_name(tmp_path: Path) -> None:
    goldens = read(tmp_path, {"x": ONE, "y.1": ONE, "x.1": ONE, "y.1.1": ONE * 2})
    assert [list(case.outputs) for case in goldens.cases] == [["y.1"], ["y.1"]]
    assert goldens.cases[1].outputs["y.1"].max() == 2


def test_arrays_of_the_reader_are_preferred(tmp_path: Path) -> None:
    reader = {"images": True, "extra": False}
    goldens = read(tmp_path, {"images": ONE, "x": ONE, "y": ONE}, reader=reader)
    assert goldens.names == ("images",)
    assert read(tmp_path, {"x": ONE, "y": ONE}, reader=reader).names == ("x",)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": ONE, "z": ONE}, r"holds 'z', expected inputs and outputs of the graph: x, y, y\.1"),
        ({"y": ONE}, "case 0 lacks the input 'x'; it holds y"),
        ({"x": ONE}, r"case 0 holds no output; expected one of y, y\.1"),
        ({"x": ONE, "y": ONE * np.nan}, r"'y' has a value that is not finite at \[0, 0\]"),
        ({"x": ONE * np.inf, "y": ONE}, "'x' has a value that is not finite"),
        ({"x": ONE, "y": ONE, "x.2": ONE, "y.1.2": ONE}, "have different outputs: y in the first"),
        ({}, "holds no golden case"),
    ],
)
def test_file_that_is_incomplete_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(tmp_path, arrays)


def test_no_goldens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"--golden is missing, a \.safetensors or \.npz file of inputs and of the outputs"
    ):
        read_goldens(None, ["x"], {}, OUTPUTS)
    with pytest.raises(ValueError, match="there is no file"):
        read_goldens(tmp_path / "absent.npz", ["x"], {}, OUTPUTS)


def test_items_are_counted(tmp_path: Path) -> None:
    goldens = read(tmp_path, {"x": ONE, "y": ONE})
    check_count(goldens, [8, 1])
    check_count(goldens, [1] * 8, is_batched=False)
    with pytest.raises(ValueError, match="holds 7 items, expected 8 or more"):
        check_count(goldens, [6, 1])
    with pytest.raises(ValueError, match=r"the axis 'batch' has the size 4 in every case; add .* as x\.1, because"):
        check_count(goldens, [4, 4])
