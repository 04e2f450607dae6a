"""Every domain has one version; metadata that onnxruntime follows is refused."""

import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from service.operators import check_operators
from service.opsets.imports import MAX_IMPORTS, MAX_METADATA_CHARACTERS, MAX_METADATA_ENTRIES, domain_of
from tests.service.bundles import OPSET, onnx_model


def model(*imports: tuple[str, int], metadata: tuple[tuple[str, str], ...] = ()) -> bytes:
    tiny = onnx.ModelProto()
    tiny.CopyFrom(onnx_model("image-classifier"))
    tiny.opset_import.extend(helper.make_opsetid(*entry) for entry in imports)
    for key, value in metadata:
        tiny.metadata_props.add(key=key, value=value)
    return tiny.SerializeToString()


def assert_refused(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_operators(content, opset=OPSET)


def test_both_names_of_the_standard_domain_are_one() -> None:
    assert domain_of("ai.onnx") == domain_of("") == ""
    with pytest.raises(ValueError, match=r"operator domain 'my\.ops', expected only standard ONNX operators"):
        domain_of("my.ops")


@pytest.mark.parametrize("version", range(1, 6))
def test_every_released_opset_of_machine_learning_is_admitted(version: int) -> None:
    content = model(("ai.onnx.ml", version), ("ai.onnx.ml", version), ("", OPSET), ("ai.onnx", OPSET))
    check_operators(content, opset=OPSET)
    ort.InferenceSession(content, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("versions", "text"), [((0,), "0"), ((6,), "6"), ((-1,), "-1"), ((3, 1), "3 and 1")])
def test_opset_of_machine_learning_out_of_range_or_ambiguous_is_refused(versions: tuple[int, ...], text: str) -> None:
    assert_refused(model(*(("ai.onnx.ml", version) for version in versions)), f"ai.onnx.ml opset {text}, expected one")


def test_number_of_imports_is_bounded() -> None:
    check_operators(model(*[("", OPSET)] * (MAX_IMPORTS - 1)), opset=OPSET)
    assert_refused(model(*[("", OPSET)] * MAX_IMPORTS), f"it imports {MAX_IMPORTS + 1} opsets")


def test_metadata_of_the_model_is_admitted_and_bounded() -> None:
    entries = tuple((f"key{i}", "値") for i in range(MAX_METADATA_ENTRIES))
    check_operators(model(metadata=entries), opset=OPSET)
    assert_refused(model(metadata=(*entries, ("more", ""))), f"its metadata has {MAX_METADATA_ENTRIES + 1} entries")
    check_operators(model(metadata=(("a", "b" * (MAX_METADATA_CHARACTERS - 1)),)), opset=OPSET)
    assert_refused(model(metadata=(("a", "b" * MAX_METADATA_CHARACTERS),)), "its metadata has 1 entries of 65537 char")
    assert_refused(model(metadata=(("a", "b"), ("a", "b"))), "its metadata has a key twice: 'a'")


@pytest.mark.parametrize("key", ["ort_config", "ORT_CONFIG", "ep_compatibility_info.CPU", "layer_ann", "ort."])
def test_metadata_that_onnxruntime_follows_is_refused(key: str) -> None:
    assert_refused(model(metadata=(("author", "me"), (key, "{}"))), "it carries metadata, which onnxruntime may follow")
