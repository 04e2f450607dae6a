"""The diff names the first diverging node, its module and its source line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.bundle.writer import write_bundle
from export.diff import diff, format_comparison, main
from service.bundle import Bundle
from tests.export.conftest import Candidates, Proofs
from tests.export.tiny import RECIPES
from training.models import RECIPES as REGISTRY


def scaled_weight(model: bytes, part: str) -> bytes:
    """The graph with its first weight whose name contains `part` enlarged by 1 %."""
    proto = onnx.load_from_string(model)
    tensor = next(tensor for tensor in proto.graph.initializer if part in tensor.name)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.01), tensor.name))
    return proto.SerializeToString()


def bundle(candidates: Candidates, proofs: Proofs, folder: Path, name: str, part: str = "") -> Bundle:
    """A written bundle. Its graph has an error in the weight `part`, if given."""
    candidate = candidates(name)
    model = scaled_weight(candidate.model, part) if part else candidate.model
    return write_bundle(replace(candidate, model=model), proofs(name), folder)


@pytest.mark.parametrize(
    ("name", "part", "operator", "module", "source"),
    [
        ("tiny-picture", "layers.6.weight", "Gemm", "layers.6", "self.layers(images)"),
        ("tiny-lstm", "unsqueeze_2", "LSTM", "ragged.rnn", "y, final = self.rnn(packed, state)"),
        ("tiny-gan", "generator.3.weight", "Gemm", "generator.3", ": class Gan(nn.Module):"),
        ("tiny-prenorm", "out_proj", "Add", "encoder.layers.0.self_attn.out_proj", "_layer(layer, x_BSD, attend)"),
    ],
)
def test_an_error_in_one_weight_is_located(  # noqa: PLR0917
    candidates: Candidates,
    proofs: Proofs,
    tmp_path: Path,
    name: str,
    part: str,
    operator: str,
    module: str,
    source: str,
) -> None:
    comparison = diff(candidates(name).source.run, bundle(candidates, proofs, tmp_path, name, part))
    assert comparison.first is not None
    assert (comparison.first.operator, comparison.first.module) == (operator, module)
    assert source in comparison.first.source
    assert "constant" in comparison.first.reason
    assert "differs by up to" in comparison.first.reason
    assert comparison.first.difference > 1e-4


def test_nothing_diverges_in_an_intact_bundle(candidates: Candidates, proofs: Proofs, tmp_path: Path) -> None:
    intact = bundle(candidates, proofs, tmp_path, "tiny-prenorm")
    comparison = diff(candidates("tiny-prenorm").source.run, intact)
    assert comparison.first is None
    assert comparison.num_compared > 30
    assert "nothing diverges" in format_comparison(intact, comparison)


def test_the_command_prints_the_node_its_module_and_its_line(
    candidates: Candidates,
    proofs: Proofs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(REGISTRY, "tiny-rnn", RECIPES["tiny-rnn"])
    bundle(candidates, proofs, tmp_path, "tiny-rnn", "head.weight")
    assert main([str(candidates("tiny-rnn").source.run.folder), str(tmp_path / "tiny-rnn")]) == 1
    printed = capsys.readouterr().out
    assert "diverges first at node" in printed
    assert "Gemm" in printed
    assert "module   head" in printed
    assert "tests/export/tiny.py:" in printed
    assert main([str(tmp_path), str(tmp_path / "tiny-rnn")]) == 2
