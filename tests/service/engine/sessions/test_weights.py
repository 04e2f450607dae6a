"""A session of a data file gives the bits of the whole graph, and its kernels read the mapping that was hashed."""

import re
from pathlib import Path

import numpy as np
import pytest

from service.bundle import Bundle, open_bundle
from service.data_files.external import external_tensors
from service.engine.sessions.session import Session
from service.errors import BundleError
from tests.service.bundles import example_inputs
from tests.service.data_files.models import FAMILY, whole_model, write_split_bundle

INPUTS = example_inputs(FAMILY, batch=5)


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return open_bundle(write_split_bundle(tmp_path))


def logits(bundle: Bundle, **options: object) -> np.ndarray:
    fields = {"data": bundle.data, **options}
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu", **fields)  # type: ignore[arg-type]
    return session.run(INPUTS, ["logits"])["logits"]


@pytest.mark.parametrize("prepack", [False, True])
def test_answers_are_those_of_the_whole_graph(bundle: Bundle, prepack: bool) -> None:
    whole = Session(whole_model().SerializeToString(), manifest=bundle.manifest, device="cpu")
    np.testing.assert_allclose(logits(bundle, prepack=prepack), whole.run(INPUTS)["logits"], rtol=1e-5)


def test_the_mapping_outlives_the_bundle(bundle: Bundle) -> None:
    expected = logits(bundle)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu", data=bundle.data)
    compute = session.compute
    object.__setattr__(bundle, "data", None)
    del session
    np.testing.assert_array_equal(compute(INPUTS, ["logits"])["logits"], expected)


@pytest.mark.parametrize("name", ["first", "second"])
def test_replaced_values_change_the_answers(bundle: Bundle, name: str) -> None:
    assert bundle.data is not None
    tensor = next(tensor for tensor in external_tensors(bundle.model) if tensor.name == name)
    doubled = bundle.data.with_values(tensor, 2 * bundle.data.values(tensor))
    again = bundle.data.with_values(tensor, bundle.data.values(tensor).copy())
    assert not np.allclose(logits(bundle, data=doubled), logits(bundle))
    np.testing.assert_array_equal(logits(bundle, data=again), logits(bundle))


def test_no_session_is_made_of_a_file_that_was_changed(bundle: Bundle) -> None:
    assert bundle.data is not None
    content = bundle.data.path.read_bytes()
    bundle.data.path.unlink()
    bundle.data.path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.onnx\.data was changed while it was being loaded"):
        logits(bundle)


def test_weights_are_not_copied_without_prepacking(bundle: Bundle) -> None:
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu", data=bundle.data)
    session.run(INPUTS)
    mappings = re.findall(r"^\S+ (\S+) .*/model\.onnx\.data$", Path("/proc/self/maps").read_text(), re.MULTILINE)
    # One mapping of the data file, which is only read; onnxruntime makes none of its own.
    assert mappings == ["r--s"]
