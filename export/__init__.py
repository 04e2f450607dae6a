"""Exports, proven to be the same model."""

import service as service  # before onnxruntime, which else reports its use
