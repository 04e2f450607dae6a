"""A variant that loses more than 0.2 points, or decides otherwise too often, is refused with figure and bound."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.helper import make_node

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.gates.batch_invariance import certify
from export.gates.precision import check_precision, with_measured_tolerance
from export.precision.variant import variant_of
from export.source import Array
from service.contract.precision import MAX_INTEGER_TOLERANCE, MAX_TOLERANCE, Precision, PrecisionName
from tests.export.conftest import Candidates, make_candidate, registered_run
from training.checkpoint import load_run

Variants = Callable[[PrecisionName], Candidate]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    return make_candidate(load_run(registered_run(tmp_path_factory.mktemp("runs") / "random-digits")))


@pytest.fixture(scope="module")
def variants(parent: Candidate) -> Variants:
    @cache
    def build(kind: PrecisionName) -> Candidate:
        return build_candidate(*variant_of(parent.source, parent.model, kind, parent.manifest))

    return build


@pytest.mark.parametrize("kind", ["tf32", "fp16", "int8"])
def test_a_variant_that_decides_the_same_passes_with_its_scores(
    variants: Variants, parent: Candidate, kind: PrecisionName
) -> None:
    result = check_precision(variants(kind))
    assert result is not None
    assert (result.kind, result.items, result.agreement) == (kind, 40, 1.0)
    assert (result.metric, result.parent_score, result.score) == ("accuracy", 1.0, 1.0)
    assert result.parent == f"random-digits/{parent.manifest.version}"


def test_a_variant_that_really_loses_is_refused_with_figure_and_bound(variants: Variants) -> None:
    """Random weights rank many labels closely, and four bits are too few for them."""
    message = (
        r"precision: in int4, accuracy on 40 examples is 0\.\d+ instead of 1\.00000: it loses 0\.\d+, at most 0.002"
    )
    with pytest.raises(ExportError, match=message):
        check_precision(variants("int4"))


def test_what_only_a_gpu_would_lose_is_simulated_and_refused(parent: Candidate) -> None:
    """Pixels of 0 to 3 or so, moved to 1024, where numbers of 10 bits are whole; the bias moves them back."""
    moved = _moved(parent.model, 1024.0)
    variant = build_candidate(*variant_of(parent.source, moved, "tf32", parent.manifest))
    images = {"images": parent.source.examples.inputs["images"]}
    labels = parent.session.run(images)["probabilities"].argmax(-1)
    np.testing.assert_array_equal(variant.session.run(images)["probabilities"].argmax(-1), labels)
    with pytest.raises(ExportError, match=r"precision: in tf32, accuracy on 40 examples is 0\.\d+ instead of 1\.00000"):
        check_precision(variant)


def _moved(model: bytes, offset: float) -> bytes:
    """The same function, whose first product has a large constant in every input, and its share in the bias."""
    proto = onnx.load_from_string(model)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    position, gemm = next((i, node) for i, node in enumerate(proto.graph.node) if node.op_type == "Gemm")
    [transposed] = [attribute.i for attribute in gemm.attribute if attribute.name == "transB"]
    weights, bias = (values[name].astype(np.float64) for name in gemm.input[1:])
    added = {"offset": np.array(offset), "moved_bias": bias - offset * weights.sum(1 if transposed else 0)}
    proto.graph.initializer.extend(numpy_helper.from_array(np.float32(array), name) for name, array in added.items())
    proto.graph.node.insert(position, make_node("Add", [gemm.input[0], "offset"], ["moved"]))
    gemm = proto.graph.node[position + 1]
    gemm.input[0], gemm.input[2] = "moved", "moved_bias"
    return proto.SerializeToString()


def test_a_variant_with_other_labels_and_the_same_score_is_refused(variants: Variants) -> None:
    """As many items are right as before, because the targets of every second one are those of the variant."""
    candidate = variants("int4")
    session, images = candidate.session, candidate.source.examples.inputs["images"]
    labels = session.run({"images": images})["probabilities"].argmax(-1)
    different = np.flatnonzero(labels != candidate.source.examples.targets)
    targets = candidate.source.examples.targets.copy()
    targets[different[::2]] = labels[different[::2]]
    examples = replace(candidate.source.examples, targets=targets)
    changed = replace(candidate, source=replace(candidate.source, examples=examples))
    with pytest.raises(
        ExportError, match=r"in int4, 0\.\d+ of the answers on 40 .* of random-digits/\w+, at least 0.99"
    ):
        check_precision(changed)


def test_a_model_in_float32_is_no_variant(candidates: Candidates) -> None:
    assert check_precision(candidates("tiny-picture")) is None
    assert with_measured_tolerance(candidates("tiny-picture")) is candidates("tiny-picture")


def test_numbers_are_compared_relative_to_how_much_they_vary(sources: Candidates) -> None:
    """An embedding decides nothing, so that its agreement is that of its numbers."""
    candidate = sources("tiny-embedding")
    [name] = candidate.manifest.tolerance
    precision = Precision(kind="int8", parent=f"tiny-embedding/{'0' * 12}", items=0, agreement=1.0)

    def moved(share: float) -> Candidate:
        def predict(inputs: Mapping[str, Array]) -> dict[str, Array]:
            values = candidate.source.predict(inputs)[name]
            return {name: values + np.float32(share * values.std())}

        parent = replace(candidate.source, predict=predict)
        return replace(candidate, source=replace(candidate.source, precision=precision, parent=parent))

    result = check_precision(moved(0.005))
    assert result is not None
    assert (result.metric, result.agreement) == ("", pytest.approx(0.995, abs=1e-3))
    with pytest.raises(ExportError, match=r"precision: in int8, 0\.9[0-9]+ of the answers .*, at least 0.99 must be"):
        check_precision(moved(0.05))


def test_tolerances_are_measured_within_the_bounds_of_a_manifest(variants: Variants) -> None:
    """What a GPU rounds has the widest tolerance that a manifest allows."""
    for kind in ("tf32", "fp16"):
        tolerance = with_measured_tolerance(variants(kind)).manifest.tolerance
        assert {one.atol for one in tolerance.values()} == {MAX_TOLERANCE}
    measured = with_measured_tolerance(variants("int8")).manifest.tolerance
    assert all(0 < one.atol <= MAX_INTEGER_TOLERANCE for one in measured.values())
    assert measured["probabilities"].atol < MAX_TOLERANCE


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_not_one_bit_of_an_answer_depends_on_the_batch(variants: Variants, kind: PrecisionName) -> None:
    certificate = certify(with_measured_tolerance(variants(kind)))
    assert certificate.invariance.level == "bitwise"
    assert certificate.num_equal == certificate.num_compared > 1000
