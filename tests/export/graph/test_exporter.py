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
from service.contract.tensors import float32
from tests.export.conftest import Candidates, Runs, make_candidate
from tests.export.graph.modules import module_source
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
    class Looping(nn.Module):
        """A loop over the steps, which torch.export unrolls."""

        def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
            series, lengths = inputs
            logits = torch.stack([series[:, step] for step in range(series.shape[1])]).amax(0) + lengths[:, None]
            return logits, logits.softmax(-1)

    with pytest.raises(ExportError, match=r"graph: PyTorch cannot trace tiny-lstm: axis 'steps' cannot vary, because"):
        export_program(run_source(runs("tiny-lstm")), module=Looping())


class Pooled(nn.Module):
    """A pool of whole pictures whose channels come last, of which the output's axes have other names."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.permute(0, 3, 1, 2)
        return self.pool(x).flatten(1), x.flatten(2)


def test_a_pool_of_whole_pictures_is_a_mean_and_axes_of_outputs_have_their_names() -> None:
    source = module_source(
        Pooled(),
        inputs=(float32("images", "batch", "height", 6, 3),),
        outputs=(float32("means", "batch", 3), float32("pixels", "batch", 3, "places")),
    )
    graph = onnx.load_from_string(strip_metadata(export_program(source))).graph
    assert "ReduceMean" in {node.op_type for node in graph.node}
    assert "Gather" not in {node.op_type for node in graph.node}
    axes = [[one.dim_param or one.dim_value for one in value.type.tensor_type.shape.dim] for value in graph.output]
    assert axes == [["batch", 3], ["batch", 3, "places"]]
