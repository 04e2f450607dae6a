"""`python -m export inspect FILE`: what a file holds, and a first spec of its model."""

from pathlib import Path

from export.inspection.arrays import inspect_arrays
from export.inspection.first_spec import Seen
from export.inspection.graphs import inspect_onnx, inspect_pt2
from export.inspection.saved_models import inspect_folder, inspect_keras
from export.sources.examples import read_arrays
from export.sources.module.weights_file import PICKLES, safe_copy

KNOWN = ".safetensors, .npz, .onnx, .pt2, .keras, or a transformers folder"


def inspect_file(path: Path) -> Seen:
    """Look into a file. Raises ValueError, one sentence without the file's name, for a file that is not understood."""
    if path.is_dir():
        return inspect_folder(path)
    if not path.is_file():
        raise ValueError("there is no such file")
    if path.suffix in PICKLES:
        raise ValueError(f"a pickle runs code when it is read; {safe_copy(path)}")
    match path.suffix:
        case ".onnx":
            return inspect_onnx(path)
        case ".pt2":
            return inspect_pt2(path)
        case ".keras":
            return inspect_keras(path)
        case ".safetensors" | ".npz":
            return inspect_arrays(path, read_arrays(path))
    raise ValueError(f"{path.suffix or 'a file without a suffix'} is not understood; expected {KNOWN}")
