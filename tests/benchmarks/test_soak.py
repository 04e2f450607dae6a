"""The soak tells correct responses from incorrect ones, and measures the growth of memory."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.connection import Response
from benchmarks.engine.soak import Sample, WorkerMonitor, busy_metrics
from benchmarks.engine.soak_cases import add_broken_version, add_version, make_cases
from service.bundle import open_bundle
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from tests.service.bundles import FAMILIES, NAMES
from tests.service.conftest import served_bundles
from tests.service.engine.versions import standalone_model

__all__ = ["served_bundles"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_version_is_valid_and_has_different_responses(
    family: str, served_bundles: Path, tmp_path: Path
) -> None:
    name, root = NAMES[family], tmp_path / "bundles"
    shutil.copytree(served_bundles, root)
    versions = add_version(root, name)
    second = open_bundle(root / name / versions[1])
    replay_cases(standalone_model(second).session, dict(enumerate(second.golden)))
    with pytest.raises(BundleError, match=r"model\.onnx has sha256"):
        open_bundle(root / name / add_broken_version(root, name))
    cases = make_cases(root, name, versions)
    assert {case.kind.partition(" ")[0] for case in cases} >= {"OIP"}
    assert any(case.expected[versions[0]] != case.expected[versions[1]] for case in cases)


def test_a_response_is_correct_only_for_the_version_that_it_names(served_bundles: Path, tmp_path: Path) -> None:
    name, root = NAMES["image-classifier"], tmp_path / "bundles"
    shutil.copytree(served_bundles, root)
    first, second = add_version(root, name)
    case = next(case for case in make_cases(root, name, (first, second)) if case.kind == "/classify JSON")

    def response(version: str, content: Any, status: int = 200) -> Response:
        return Response(status, {}, json.dumps({"version": version, **content}).encode())

    assert case.matching_version(response(first, case.expected[first])) == first
    assert case.matching_version(response(second, case.expected[second])) == second
    assert case.matching_version(response(second, case.expected[first])) is None
    assert case.matching_version(response("another", case.expected[first])) is None
    assert case.matching_version(response(first, case.expected[first], status=503)) is None


def test_tensors_are_compared_bit_by_bit(served_bundles: Path) -> None:
    name = NAMES["image-classifier"]
    version = (served_bundles / name / "current").read_text().strip()
    cases = make_cases(served_bundles, name, (version,))
    case = next(case for case in cases if case.kind == "OIP JSON")
    logits, probabilities = (np.frombuffer(raw, np.float32) for raw in case.expected[version])

    def response(values: np.ndarray[Any, Any]) -> Response:
        outputs = [
            {"name": "logits", "data": values.tolist()},
            {"name": "probabilities", "data": probabilities.tolist()},
        ]
        return Response(200, {}, json.dumps({"model_version": version, "outputs": outputs}).encode())

    assert case.matching_version(response(logits)) == version
    assert case.matching_version(response(np.nextafter(logits, np.float32(9)))) is None


def test_growth_compares_the_last_span_with_the_first_after_the_warm_up() -> None:
    process = SimpleNamespace(pid=1)
    monitor = WorkerMonitor([process])  # type: ignore[list-item]
    monitor.samples[1] = [Sample(t, 50 if t < 10 else 100 + t // 20, 3, 1) for t in range(60)]
    assert monitor.growth(1, 10) == (100, 102)


def test_what_is_left_in_the_metrics_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "# HELP ekiben_http_in_flight requests",
        'ekiben_engine_queue_items{model="a"} 2.0',
        'ekiben_engine_queue_items{model="b"} 1.0',
        "ekiben_http_in_flight 0.0",
        "ekiben_http_requests_total 7.0",
    ]
    monkeypatch.setattr("httpx.get", lambda *_, **__: SimpleNamespace(text="\n".join(lines)))
    assert busy_metrics("http://x") == {"ekiben_engine_queue_items": 3.0}
