"""The engine computes tensors of every dtype, with the batch axis anywhere or nowhere, and mixes no sizes."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.bundle import open_bundle
from service.contract.tensors import from_rows, has_rows_first, tensor, to_rows
from service.engine.runner import Runner
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_batch_invariance
from service.engine.verification.golden_strength import check_golden_strength
from service.engine.verification.parity import replay_cases
from service.engine.verification.shapes import warmup_shapes, zero_inputs
from tests.service.tensor_bundles import DTYPES, VALUES, write_echo, write_second_axis, write_without_batch


def load(folder: Path) -> Session:
    bundle = open_bundle(folder)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    cases = dict(enumerate(bundle.golden))
    assert set(replay_cases(session, cases).values()) == {0.0}
    check_batch_invariance(session, cases)
    check_golden_strength(session, bundle)
    for shape in warmup_shapes(bundle.manifest):
        session.run(zero_inputs(bundle.manifest, shape))
    return session


def run_all(session: Session, requests: list[Mapping[str, Any]]) -> list[Any]:
    runner = Runner()

    async def run() -> list[Any]:
        calls = [runner.run(session, inputs, None, context=runner.new_context()) for inputs in requests]
        return list(await asyncio.gather(*calls))

    try:
        return asyncio.run(run())
    finally:
        runner.close()


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_passes_the_checks_of_loading_and_shares_batches(dtype: Any, tmp_path: Path) -> None:
    session = load(write_echo(tmp_path, dtype))
    rows = [np.array([np.roll(VALUES[dtype], i)], object if dtype == "string" else dtype) for i in range(40)]
    for row, outputs in zip(rows, run_all(session, [{"x": row} for row in rows]), strict=True):
        assert outputs["y"].tolist() == row.tolist()


@pytest.mark.parametrize(("write", "axis"), [(write_second_axis, "times"), (write_without_batch, "rows")])
def test_sizes_are_never_mixed(write: Callable[[Path], Path], axis: str, tmp_path: Path) -> None:
    session = load(write(tmp_path))
    manifest, rng = session.manifest, np.random.default_rng(0)
    requests = []
    for number in range(60):
        sizes = {axis: 1 + number % manifest.limits.axes[axis].max, "batch": 1}
        requests.append(
            {
                spec.name: rng.integers(0, 99, [sizes.get(size, size) for size in ("batch", *spec.row_shape)]).astype(  # type: ignore[arg-type]
                    spec.numpy_dtype
                )
                for spec in manifest.inputs
            }
        )
    for inputs, outputs in zip(requests, run_all(session, requests), strict=True):
        single = session.run(inputs)
        assert {name: value.tobytes() for name, value in outputs.items()} == {
            name: np.ascontiguousarray(value).tobytes() for name, value in single.items()
        }


def test_rows_come_first_and_go_back() -> None:
    value = np.arange(24).reshape(2, 3, 4)
    row_shapes = {
        ("batch", 3, 4): (2, 3, 4),
        (2, "batch", 4): (3, 2, 4),
        (2, 3, "batch"): (4, 2, 3),
        (2, 3, 4): (1, 2, 3, 4),
    }
    for shape, rows in row_shapes.items():
        spec = tensor("int64", "x", *shape)
        moved = to_rows(value, spec)
        assert moved.shape == rows
        assert np.array_equal(from_rows(moved, spec), value)
        assert spec.row_shape == rows[1:]
        assert has_rows_first((spec,)) == (shape[0] == "batch")
