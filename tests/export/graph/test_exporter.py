"""The exported graph has the declared dynamic axes, no metadata, and the same bytes each time."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from export.errors import ExportError
from export.gates.parity import check_parity
from export.gates.structure import check_structure
from export.graph.exporter import export_program, strip_metadata
from export.graph.recurrent import OPSET
from export.sources.run import run_source
from tests.export.conftest import Candidates, Runs, make_candidate
from training.layers import Ragged


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-tagger"])
def test_exporting_twice_gives_the_same_bytes(candidates: Candidates, runs: Runs, name: str) -> None:
    assert strip_metadata(export_program(run_source(runs(name)))) == candidates(name).model


@pytest.mark.parametrize("name", ["tiny-colour", "tiny-lstm", "tiny-language"])
def test_a_stripped_graph_holds_no_path_or_metadata(candidates: Candidates, name: str) -> None:
    content = candidates(name).model
    assert str(Path(__file__).parents[3]).encode() not in content
    assert b"site-packages" not in content
    assert b".py" not in content
    model = onnx.load_from_string(content)
    assert not model.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_the_graph_holds_its_weights_and_has_the_declared_opset(candidates: Candidates) -> None:
    model = onnx.load_from_string(candidates("tiny-lstm").model)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)


class StackedLayers(nn.Module):
    """An architecture of no recipe: two recurrent layers of different kinds with a linear layer between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = Ragged(nn.RNN(3, 5, batch_first=True))
        self.between = nn.Linear(5, 6)
        self.second = Ragged(nn.LSTM(6, 4, num_layers=2, batch_first=True))
        self.head = nn.Linear(8, 4)

    def forward(self, series: Tensor, lengths: Tensor) -> Tensor:
        y, _ = self.first(series, lengths)
        _, (h, c) = self.second(self.between(y).relu(), lengths)
        return self.head(torch.cat([h[-1], c[0]], dim=-1))


def test_any_module_built_from_ragged_exports(runs: Runs) -> None:
    torch.manual_seed(0)
    run = replace(runs("tiny-lstm"), model=StackedLayers().eval())
    candidate = make_candidate(run)
    operators = check_structure(candidate)
    assert (operators["RNN"], operators["LSTM"]) == (1, 2)
    assert check_parity(candidate).largest("logits").max_difference < 1e-5


def test_an_axis_that_cannot_vary_raises(runs: Runs) -> None:
    class UnwrappedRnn(nn.Module):
        """An RNN that is not called through Ragged, which torch.export would unroll."""

        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.RNN(3, 4, batch_first=True)

        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            series, lengths = inputs
            logits = self.rnn(series)[1][-1] + lengths[:, None]
            return logits, logits.softmax(-1)

    with pytest.raises(ExportError, match=r"graph: PyTorch cannot export tiny-lstm: .*static shape of 4"):
        export_program(run_source(runs("tiny-lstm")), module=UnwrappedRnn())
