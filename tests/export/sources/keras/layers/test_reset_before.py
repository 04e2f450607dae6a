"""The GRU that applies the reset gate first: the operator that is exported computes what the steps compute."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from export.graph.exporter import silence_exporter
from export.graph.recurrent import OPSET
from export.sources.keras.layers.reset_before import ResetBeforeGru


@pytest.mark.parametrize("has_bias", [False, True])
def test_exported_operator_equals_the_steps(has_bias: bool) -> None:
    torch.manual_seed(0)
    gru = ResetBeforeGru(torch.randn(4, 15), torch.randn(5, 15), torch.randn(15) if has_bias else None)

    class Outputs(torch.nn.Module):
        def forward(self, x: Any, lengths: Any, h: Any) -> Any:
            y, (last,) = gru(x, lengths, (h,))
            return y, last

    inputs = torch.randn(3, 6, 4), torch.tensor([6, 1, 4]), torch.randn(3, 5)
    batch, steps = torch.export.Dim("batch"), torch.export.Dim("steps")
    shapes = ({0: batch, 1: steps}, {0: batch}, {0: batch})
    model = Outputs()
    model.gru = gru
    model.eval()
    with silence_exporter():
        program = torch.onnx.export(
            model, inputs, dynamo=True, opset_version=OPSET, dynamic_shapes=shapes, verbose=False
        )
    assert program is not None
    assert [node.op_type for node in program.model_proto.graph.node].count("GRU") == 1
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    for steps_now in (6, 9):
        x, lengths, h = torch.randn(2, steps_now, 4), torch.tensor([steps_now, 2]), torch.randn(2, 5)
        names = [one.name for one in session.get_inputs()]
        y, last = session.run(None, dict(zip(names, (x.numpy(), lengths.numpy(), h.numpy()), strict=True)))
        expected, final = model(x, lengths, h)
        np.testing.assert_allclose(last, final.numpy(), atol=1e-6)
        for row, length in enumerate(lengths.tolist()):
            np.testing.assert_allclose(y[row, :length], expected[row, :length].numpy(), atol=1e-6)
