"""Every kind of file is looked into by its suffix; pickles are not."""

from pathlib import Path

import numpy as np
import pytest

from export.inspection.report import inspect_file


def test_examples_are_looked_into(tmp_path: Path) -> None:
    np.savez(tmp_path / "e.npz", x=np.zeros((9, 4, 4), np.uint8), y=np.zeros(9, int))
    assert 'kind = "image"' in inspect_file(tmp_path / "e.npz").spec


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("w.pth", r"a pickle runs code when it is read; save .* 'w\.safetensors'"),
        ("w.csv", r"\.csv is not understood; expected"),
        ("w.onnx", "no ONNX graph"),
        ("w.pt2", "is no file of torch.export.save"),
        ("w.keras", "no .keras file"),
        ("w.safetensors", "cannot be read"),
    ],
)
def test_other_files_are_one_sentence(name: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no")
    with pytest.raises(ValueError, match=sentence):
        inspect_file(tmp_path / name)


def test_absent_files_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such file"):
        inspect_file(tmp_path / "absent.onnx")
    with pytest.raises(ValueError, match="no folder of a saved transformers model"):
        inspect_file(tmp_path)
