"""Weights move to a data file with their bits, small graphs stay as they are, and gates and bundle work on both."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from export.bundle.writer import write_bundle
from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.proof import prove
from export.gates.weights.gate import check_weights
from export.graph.data_file import move_weights, share_parameters
from export.graph.exporter import export_program, strip_metadata
from export.source import Source
from export.sources.run import run_source
from service.data_files.external import external_tensors
from service.manifest import MODEL_DATA
from tests.export.conftest import registered_run
from training.checkpoint import load_run


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return run_source(load_run(registered_run(tmp_path / "runs" / "mnist-mlp")))


@pytest.fixture
def candidate(source: Source, tmp_path: Path) -> Candidate:
    """The candidate of a source whose weights lie in a data file."""
    program = export_program(source)
    data = move_weights(program.model, tmp_path / "work", max_inline_bytes=0)
    return build_candidate(source, strip_metadata(program, data), data)


def test_a_small_graph_keeps_its_weights(source: Source, tmp_path: Path) -> None:
    program = export_program(source)
    before = strip_metadata(program)
    assert move_weights(program.model, tmp_path / "work") is None
    assert strip_metadata(program) == before
    assert not (tmp_path / "work").exists()


def test_the_data_file_holds_the_bits_of_the_weights(candidate: Candidate, source: Source) -> None:
    assert candidate.data is not None
    assert len(candidate.model) < 10_000
    assert source.module is not None
    parameters = [one.detach().numpy() for one in source.module.parameters()]
    for tensor in external_tensors(candidate.model):
        values = candidate.data.values(tensor)
        assert any(np.array_equal(values, one) for one in parameters)
    assert check_weights(candidate).num_initializers > 0


def test_another_weight_in_the_data_file_is_refused(candidate: Candidate) -> None:
    assert candidate.data is not None
    tensor = external_tensors(candidate.model)[0]
    values = candidate.data.values(tensor).copy()
    values.reshape(-1)[7] += 1e-3
    with pytest.raises(ExportError, match=r"is no constant of the model"):
        check_weights(replace(candidate, data=candidate.data.with_values(tensor, values)))


def test_a_proven_candidate_becomes_a_bundle_with_a_data_file(candidate: Candidate, tmp_path: Path) -> None:
    assert candidate.data is not None
    bundle = write_bundle(candidate, prove(candidate, lambda stage: None), tmp_path / "bundles")
    assert bundle.data is not None
    assert bundle.data.sha256 == candidate.data.sha256 == bundle.manifest.files[MODEL_DATA].sha256
    assert bundle.data.path.parent.name == bundle.manifest.version
    assert not candidate.data.path.exists()
    score = bundle.manifest.mutation
    assert score is not None
    assert score.killed_at_export == score.mutants > 0


def test_parameters_read_the_data_file_only_if_their_bits_are_there(candidate: Candidate) -> None:
    class Two(nn.Module):
        def __init__(self, weight: Tensor) -> None:
            super().__init__()
            self.same = nn.Parameter(weight.clone())
            self.other = nn.Parameter(weight + 1)

    assert candidate.data is not None
    tensor = external_tensors(candidate.model)[0]
    values = candidate.data.values(tensor)
    module = Two(torch.from_numpy(values.copy()))
    assert share_parameters(module, candidate.model, candidate.data) == tensor.size
    assert module.same.data_ptr() == values.ctypes.data
    assert torch.equal(module.other, module.same + 1)
