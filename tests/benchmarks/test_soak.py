"""The soak knows a wrong answer from a right one, and growth from none."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.connection import Answer
from benchmarks.engine.soak import Sample, Workers
from benchmarks.engine.soak_cases import add_broken, add_version, cases_of
from service.bundle import open_bundle
from service.engine.verification.parity import replay
from service.errors import BundleError
from tests.service.bundles import FAMILIES, NAMES
from tests.service.conftest import served_bundles
from tests.service.engine.versions import standalone_model

__all__ = ["served_bundles"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_second_version_is_right_in_itself_and_answers_otherwise(
    family: str, served_bundles: Path, tmp_path: Path
) -> None:
    name, root = NAMES[family], tmp_path / "bundles"
    shutil.copytree(served_bundles, root)
    versions = add_version(root, name)
    second = open_bundle(root / name / versions[1])
    replay(standalone_model(second).session, second)
    with pytest.raises(BundleError, match=r"model\.onnx has sha256"):
        open_bundle(root / name / add_broken(root, name))
    cases = cases_of(root, name, versions)
    assert {case.kind.partition(" ")[0] for case in cases} >= {"OIP"}
    assert any(case.answers[versions[0]] != case.answers[versions[1]] for case in cases)


def test_an_answer_is_right_if_it_is_that_of_the_version_that_it_names(served_bundles: Path, tmp_path: Path) -> None:
    name, root = NAMES["image-classifier"], tmp_path / "bundles"
    shutil.copytree(served_bundles, root)
    first, second = add_version(root, name)
    case = next(case for case in cases_of(root, name, (first, second)) if case.kind == "/classify JSON")

    def answer(version: str, said: Any, status: int = 200) -> Answer:
        return Answer(status, {}, json.dumps({"version": version, **said}).encode())

    assert case.maker(answer(first, case.answers[first])) == first
    assert case.maker(answer(second, case.answers[second])) == second
    assert case.maker(answer(second, case.answers[first])) is None
    assert case.maker(answer("another", case.answers[first])) is None
    assert case.maker(answer(first, case.answers[first], status=503)) is None


def test_tensors_are_compared_by_their_bits(served_bundles: Path) -> None:
    name = NAMES["image-classifier"]
    version = (served_bundles / name / "current").read_text().strip()
    cases = cases_of(served_bundles, name, (version,))
    case = next(case for case in cases if case.kind == "OIP JSON")
    logits, probabilities = (np.frombuffer(raw, np.float32) for raw in case.answers[version])

    def answer(values: np.ndarray[Any, Any]) -> Answer:
        outputs = [
            {"name": "logits", "data": values.tolist()},
            {"name": "probabilities", "data": probabilities.tolist()},
        ]
        return Answer(200, {}, json.dumps({"model_version": version, "outputs": outputs}).encode())

    assert case.maker(answer(logits)) == version
    assert case.maker(answer(np.nextafter(logits, np.float32(9)))) is None


def test_growth_is_from_the_first_span_after_the_warm_up_to_the_last() -> None:
    process = SimpleNamespace(pid=1)
    workers = Workers(SimpleNamespace(children=lambda: [process]))  # type: ignore[arg-type]
    workers.samples[1] = [Sample(at, 50 if at < 10 else 100 + at // 20, 3) for at in range(60)]
    assert workers.growth(1, 10) == (100, 102)
