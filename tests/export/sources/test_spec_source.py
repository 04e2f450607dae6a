"""Names of bundles; the tests of each way in cover the sources themselves."""

from pathlib import Path

import numpy as np
import pytest

from export.sources.payload import read_payload
from export.sources.spec_source import bundle_name, spec_source
from export.spec import parse_spec
from service.contract.heads import TensorsHead
from service.manifest import RESERVED_NAMES


@pytest.mark.parametrize(
    ("path", "name"), [("My Model_v2.safetensors", "my-model-v2"), ("pkg.net:Net", "pkg"), ("___", "model")]
)
def test_names_of_bundles(path: str, name: str) -> None:
    assert bundle_name(Path(path)) == name


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_words_of_the_routes_are_no_names(name: str) -> None:
    assert bundle_name(Path(f"{name}.onnx")) == f"{name}-model"


def test_the_spec_and_the_files_make_the_source(tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"abc")
    np.savez(tmp_path / "e.npz", x=np.arange(24, dtype=np.float32).reshape(12, 2))
    content = {
        "summary": "Two numbers",
        "reader": {"kind": "tensors"},
        "head": {"kind": "tensors"},
        "tolerance": {"atol": 1e-6, "rtol": 1e-3},
        "invariance": "tolerance",
        "control_flow": True,
    }
    spec = parse_spec(content, tmp_path / "spec.toml")
    payload = read_payload(spec, tmp_path / "e.npz")
    source = spec_source(
        spec,
        payload,
        name="two",
        summary="not used",
        note="Twelve rows.",
        recipe="module",
        reference="PyTorch",
        dataset="e.npz",
        files=(tmp_path / "w", None),
        head=TensorsHead(),
        outputs=payload.inputs,
        predict=dict,
        predict_float64=None,
        module=None,
        metrics={},
        versions={"torch": "1"},
        opset=20,
    )
    assert (source.name, source.summary, source.atol, source.rtol) == ("two", "Two numbers", 1e-6, 1e-3)
    assert (source.invariance, source.control_flow, source.inputs) == ("tolerance", True, payload.inputs)
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert source.provenance.data == {"w": sha256}
