"""The card of a variant names its parent, both scores and the agreement; other cards say nothing."""

from export.bundle.precision import describe_precision
from service.contract.precision import Precision


def test_a_variant_is_described_by_what_it_loses() -> None:
    precision = Precision(
        kind="int8",
        parent="digits/0123456789ab",
        items=1000,
        agreement=0.998,
        metric="accuracy",
        parent_score=0.97,
        score=0.969,
    )
    text = describe_precision(precision)
    assert "of `digits/0123456789ab`, stored as int8" in text
    assert "| accuracy | 0.97000 | 0.96900 |" in text
    assert "| agreement | 1 | 0.9980 |" in text
    assert "accuracy" not in describe_precision(precision.model_copy(update={"metric": ""}))


def test_tf32_is_described_as_what_a_gpu_computes() -> None:
    precision = Precision(kind="tf32", parent="digits/0123456789ab", items=10, agreement=1)
    text = describe_precision(precision)
    assert "The graph is that of `digits/0123456789ab`. A GPU computes its products in TF32, a CPU in float32." in text
    assert "| on 10 examples | float32 | tf32 |" in text


def test_a_model_in_float32_has_no_such_section() -> None:
    assert not describe_precision(None)
