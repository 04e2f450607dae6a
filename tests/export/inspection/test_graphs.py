"""The first spec of a graph has its tensors, and bounds for each free axis."""

import tomllib
from pathlib import Path

import onnx
import pytest
import torch
from onnx import parser
from torch import nn

from export.inspection.graphs import inspect_onnx, inspect_pt2
from export.spec import parse_spec

MODEL = """<ir_version: 8, opset_import: ["": 17]>
g (float[N, T, 3] x) => (float[N, T, 3] y, int64[N] z) { y = Relu(x) z = Cast<to = 7>(x) }"""


def test_an_onnx_graph(tmp_path: Path) -> None:
    onnx.save(parser.parse_model(MODEL), tmp_path / "m.onnx")
    seen = inspect_onnx(tmp_path / "m.onnx")
    content = tomllib.loads(seen.spec)
    assert content["reader"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", "T", 3]}]
    assert [output["shape"] for output in content["head"]["outputs"]] == [["batch", "T", 3], ["batch"]]
    assert content["limits"]["axes"] == {"T": [1, 512]}
    parse_spec(content, tmp_path / "spec.toml")
    assert "opset ai.onnx 17, 2 nodes: Cast, Relu" in seen.text


def test_a_program_of_torch_export(tmp_path: Path) -> None:
    dynamic = ({0: torch.export.Dim("b", min=1, max=64), 1: torch.export.Dim("t", min=2, max=64)},)
    program = torch.export.export(nn.Linear(3, 2).eval(), (torch.zeros(4, 5, 3),), dynamic_shapes=dynamic)
    torch.export.save(program, tmp_path / "m.pt2")
    content = tomllib.loads(inspect_pt2(tmp_path / "m.pt2").spec)
    assert content["reader"]["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["batch", "axis_1", 3]}]
    assert content["head"]["outputs"] == [{"name": "output_0", "dtype": "float32", "shape": ["batch", "axis_1", 2]}]
    parse_spec(content, tmp_path / "spec.toml")


def test_another_file_is_no_graph(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x00no")
    with pytest.raises(ValueError, match="no ONNX graph"):
        inspect_onnx(tmp_path / "m.onnx")
