"""Keras' own ONNX export of an LSTM has frozen steps: it is refused, and the axis is named."""

from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from keras import layers

from export.graph.exporter import silence_exporter
from export.sources.onnx_file.source import load
from tests.export.sources.keras.comparison import keras


def test_graph_with_frozen_steps_is_refused(tmp_path: Path) -> None:
    series = keras.Input((None, 4), name="series")
    model = keras.Model(series, layers.LSTM(5, return_sequences=True)(series))
    model(np.zeros((2, 6, 4), np.float32))
    with silence_exporter():
        model.export(tmp_path / "lstm.onnx", format="onnx", verbose=False)
    import onnx

    [output] = onnx.load(tmp_path / "lstm.onnx").graph.output
    arrays = {}
    for number, (batch, steps) in enumerate(((4, 6), (5, 9))):
        rows = np.random.default_rng(number).normal(size=(batch, steps, 4)).astype(np.float32)
        with torch.no_grad():
            arrays[f"{output.name}.{number}"] = model(rows).numpy()
        arrays[f"series.{number}"] = rows
    np.savez(tmp_path / "golden.npz", **arrays)
    options = Namespace(model=tmp_path / "lstm.onnx", golden=tmp_path / "golden.npz", spec=None, name=None)
    with pytest.raises(ValueError, match=r"its axis 'dim_.*' is frozen"):
        load(options)
