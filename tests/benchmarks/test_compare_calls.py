"""The comparison of calls reports the fastest runs, and asks a process for what it measures."""

import argparse
import base64
import json
import sys
from pathlib import Path

import pytest

from benchmarks.engine import compare_calls
from benchmarks.engine.compare_calls import Cell, Measured, Side, differences, measure, started, table
from benchmarks.engine.server import ROOT
from benchmarks.peers.bodies import EncodedRequest
from tests.service.bundles import write_bundle


def test_the_table_has_the_fastest_runs_and_the_fewest_calls() -> None:
    first = Measured({"old": [9.0, 4.0], "new": [8.0, 7.0]}, {"old": {"f": 2}, "new": {"f": 5}})
    second = Measured({"old": [5.0, 6.0], "new": [6.0, 9.0]}, {"old": {"f": 3}, "new": {"f": 4, "g": 0}})
    assert table({"cell": [first, second]}).splitlines()[-1] == "| cell | 4.0 | 6.0 | 1.500 | 2 | 4 |"


def test_differences_are_sorted_and_leave_out_what_is_equal() -> None:
    assert differences({"f": 1, "g": 3, "h": 2}, {"f": 1, "g": 1, "i": 4}) == ["+4 i", "-2 g", "-2 h"]


@pytest.fixture
def args(tmp_path: Path) -> argparse.Namespace:
    write_bundle(tmp_path, "image-classifier")
    return argparse.Namespace(python=sys.executable, bundles=tmp_path, rounds=2, requests=2)


def image_side(checkout: str, pixel: int) -> Side:
    body = json.dumps({"model": "tiny-images", "images": [[[pixel] * 4] * 4]}).encode()
    request = EncodedRequest(path="/classify", headers={"Content-Type": "application/json"}, body=body)
    return Side(checkout=checkout, model="tiny-images", request=request)


def test_both_sides_answer_the_same_request(args: argparse.Namespace) -> None:
    tensors = json.dumps({"inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 4, 4], "data": [7] * 16}]})
    request = EncodedRequest(path="/v2/models/tiny-images-tensors/infer", headers={}, body=tensors.encode())
    twin = Side(checkout="new", model="tiny-images-tensors", request=request, as_tensors=True)
    with started(ROOT, args) as worker:
        workers = {"old": worker, "new": worker}
        equal = Cell(name="equal", old=image_side("old", 7), new=image_side("new", 7))
        measured = measure(equal, workers, args)
        assert all(us > 0 for side in ("old", "new") for us in measured.spent_us[side])
        assert [len(measured.spent_us[side]) for side in ("old", "new")] == [2, 2]
        assert measured.calls["new"]["service/tasks/classify.py: classify"] == 1
        measure(Cell(name="twin", old=image_side("old", 7), new=twin, is_equal=False), workers, args)
        unequal = Cell(name="unequal", old=image_side("old", 7), new=image_side("new", 200))
        with pytest.raises(SystemExit, match="unequal: the answers differ"):
            measure(unequal, workers, args)
        refused = Cell(name="refused", old=image_side("old", 256), new=image_side("new", 7))
        with pytest.raises(SystemExit, match="has ended"):
            measure(refused, workers, args)


def test_every_body_of_a_model_is_a_cell() -> None:
    cells = list(compare_calls.cells(ROOT / "bundles", ["mnist-cnn"]))
    names = [cell.name.removeprefix("mnist-cnn") for cell in cells]
    bodies = ["JSON", "PNG", "OIP, binary", "OIP, JSON", "JSON, 32 items"]
    twins = [f" as tensors, {body}" for body in ("OIP, binary", "OIP, JSON")]
    assert names == [*(f", {body}" for body in bodies), *twins]
    [png] = json.loads(cells[1].old.request.body)["images"]
    assert base64.b64decode(png).startswith(b"\x89PNG")
    assert cells[-1].new.as_tensors
    assert not cells[-1].old.as_tensors
