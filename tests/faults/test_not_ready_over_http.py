"""A real server reports the fault of each broken bundle to clients and in its log, until all are repaired."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import save

from service.bundle import GoldenCase, pack_golden
from service.manifest import GOLDEN, MODEL
from tests.e2e.serving import ROOT, SERVE, ServerProcess, environment, start
from tests.service.bundles import FAMILIES, NAMES, bundle_files, golden_cases, write_bundle
from tests.service.conftest import served_bundles
from tests.service.engine.versions import NAME, flip_byte, publish, slow_graph
from tests.service.hosts import GRANIAN, Answer, ask, classify, wait_until

__all__ = ["served_bundles"]
HOSTS = pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
REASONS = {  # by family
    "image-classifier": " while replaying the golden cases",
    "series-classifier": "model.onnx has sha256 ",
    "series-tagger": "golden case 0 ",
    "text-classifier": "manifest.json was changed: its content has version ",
    "language-model": "no file `current`",
    "image-generator": "away from the PyTorch model (atol 0, rtol 0)",
}


def write_faulty_bundles(root: Path) -> None:
    """Write a bundle with a different fault for each family."""
    publish(root, 0, files={MODEL: slow_graph(1 << 23)})
    flip_byte(write_bundle(root, "series-classifier"))
    first, *rest = golden_cases("series-tagger")
    moved = GoldenCase(inputs=first.inputs, outputs={name: value + 0.1 for name, value in first.outputs.items()})
    golden = {GOLDEN: save(pack_golden((moved, *rest)))}
    write_bundle(root, "series-tagger", files=bundle_files("series-tagger") | golden)
    manifest = write_bundle(root, "text-classifier") / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"atol": 1e-05', '"atol": 0.005', 1))
    (write_bundle(root, "language-model").parent / "current").unlink()
    first, *rest = golden_cases("image-generator")
    moved = GoldenCase(
        inputs=first.inputs, outputs={"samples": first.outputs["samples"] + 1e-6, "images": first.outputs["images"]}
    )
    exact = {"atol": 0.0, "rtol": 0.0, "measured": 0.0}
    write_bundle(
        root,
        "image-generator",
        files=bundle_files("image-generator") | {GOLDEN: save(pack_golden((moved, *rest)))},
        tolerance={"samples": exact, "images": exact},
    )


def problem(answer: Answer) -> tuple[int, str]:
    """The status and the detail of a problem document."""
    status, _, content = answer
    return status, json.loads(content).get("detail", "")


def readiness(host: ServerProcess) -> tuple[int, str]:
    return problem(ask(host.port, "GET", "/readyz"))


def models(host: ServerProcess) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in json.loads(ask(host.port, "GET", "/models")[2])["models"]}


@HOSTS
def test_every_fault_is_reported_and_the_repaired_service_is_ready(
    command: tuple[str, ...], served_bundles: Path, tmp_path: Path
) -> None:
    root, log = tmp_path / "bundles", tmp_path / "log"
    write_faulty_bundles(root)
    env = environment(EKIBEN_BUNDLES=str(root), BENTOML_HOME=str(tmp_path), EKIBEN_HANG_S="4", EKIBEN_POLL_S="0.1")
    with start(command, env=env, cwd=ROOT, log=log, status=503) as host:
        reasons: dict[str, str] = {}

        def all_have_failed() -> bool:
            """Collect each failure as it is seen, because each model is retried after some seconds."""
            reasons.update({name: row["reason"] for name, row in models(host).items() if row["state"] == "FAILED"})
            return set(reasons) == set(NAMES.values())

        wait_until(all_have_failed)
        log_text = log.read_text()
        for family, expected in REASONS.items():
            assert expected in reasons[NAMES[family]]
            assert reasons[NAMES[family]] in log_text

        reported: set[str] = set()
        seen: dict[tuple[str, ...], object] = {}  # what was answered last, by the names that were not reported

        def all_are_reported() -> bool:
            """Read the reasons anew: a model that is tried again may fail for another one, or be loading now.

            A long detail is cut in the middle of the last reason, which holds the path of a temporary folder.
            """
            rows, detail = models(host), readiness(host)[1]
            failed = {name: row["reason"] for name, row in rows.items() if row["state"] == "FAILED"}
            reported.update(name for name, reason in failed.items() if reason[:60] in detail)
            seen[tuple(sorted(set(NAMES.values()) - reported))] = rows, detail
            return reported == set(NAMES.values())

        try:
            wait_until(all_are_reported)
        except AssertionError:
            pytest.fail(f"some faults were not reported: {seen}")
        assert ask(host.port, "GET", "/livez")[0] == 200
        wait_until(lambda: problem(classify(host.port)) == (503, reasons[NAME]))
        for family in FAMILIES:
            shutil.rmtree(root / NAMES[family])
            shutil.copytree(served_bundles / NAMES[family], root / NAMES[family])
        wait_until(lambda: ask(host.port, "GET", "/readyz")[0] == 200)
        assert classify(host.port)[0] == 200


@HOSTS
def test_an_empty_folder_is_reported(command: tuple[str, ...], tmp_path: Path) -> None:
    root, log = tmp_path / "bundles", tmp_path / "log"
    root.mkdir()
    env = environment(EKIBEN_BUNDLES=str(root), BENTOML_HOME=str(tmp_path))
    with start(command, env=env, cwd=ROOT, log=log, status=503) as host:
        expected = f"no model folder in {root}: export a model first"
        wait_until(lambda: readiness(host) == (503, expected))
        assert models(host) == {}
        assert expected in log.read_text()
