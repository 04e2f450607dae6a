"""Give a session the weights of a data file: as memory that all sessions and processes share.

onnxruntime would map the file once for each session and copy each weight of a matrix product into a layout of its own
(prepacking). Here the kernels read the mapping that was hashed, so processes that serve the same bundle share its
pages. Only what onnxruntime computes from weights while it loads a graph is read through the path.
"""

import numpy as np
import onnxruntime as ort

from service.data_files.data_file import DataFile
from service.data_files.external import external_tensors
from service.engine.sessions.device import Device


def share_weights(
    options: ort.SessionOptions, model: bytes, data: DataFile, *, device: Device, prepack: bool
) -> tuple[ort.OrtValue, ...]:
    """Add the weights to the options; the values that are returned must live as long as the session."""
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    values: list[ort.OrtValue] = []
    changed: dict[str, ort.OrtValue] = {}
    for tensor in external_tensors(model):
        array = data.values(tensor)
        if tensor.name in data.replaced:
            # Copied into the graph before it is optimised, so that what is computed from it changes as well.
            changed[tensor.name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        elif device == "cpu":
            values.append(ort.OrtValue.ortvalue_from_numpy(array))
            options.add_initializer(tensor.name, values[-1])
    if changed:
        options.add_external_initializers(list(changed), list(changed.values()))
    return (*values, *changed.values())
