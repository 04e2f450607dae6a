"""Structured tensors reach both ends of their values, at two sizes, one input at a time."""

import numpy as np

from export.gates.coverage.domain import choose_domain
from export.gates.coverage.tensors import tensor_rows
from tests.export.tiny_sources import make_candidate


def test_floats_and_flags_have_zeros_ones_and_both_ends_at_two_sizes() -> None:
    candidate = make_candidate("tiny-unbatched")
    domain = choose_domain(candidate.source, candidate.manifest)
    rows = list(tensor_rows(candidate.source, candidate.manifest, domain))
    assert {len(row.inputs["flags"]) for row in rows} == {2, 3}
    matrices = [row.inputs["matrix"] for row in rows if row.name.startswith("matrix: ")]
    for value in (0.0, 1.0, domain["matrix"].low, domain["matrix"].high):
        assert any((matrix == value).all() for matrix in matrices)
    flags = [row.inputs["flags"] for row in rows if row.name.startswith("flags: ")]
    assert {True, False} == {bool(one[0]) for one in flags if len(set(one.tolist())) == 1}
    assert any(one.sum() == 1 for one in flags)
    assert all(np.isfinite(matrix).all() and matrix.dtype == np.float32 for matrix in matrices)
