"""1,000 inputs get bit-identical answers from HTTP, the Open Inference Protocol and scoring, for each exported model.

A language model completes 250 prompts, with five steps each. The server and the worker processes
are real, and the protocol's client sends and receives tensors alone.
"""

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from service.engine.sessions.model import Model
from service.scoring.model import load_bundle
from service.scoring.run import score
from tests.service.scoring.conftest import predictions
from tests.service.scoring.inputs import FIELD, png, write_jsonl
from tests.service.scoring.online import GREEDY, by_http, by_tensors, exact
from tests.service.scoring.test_online import assert_equal
from training.checkpoint import Run, load_run
from training.models import RECIPES

NUM_ROWS, NUM_PROMPTS = 1000, 250
NOT_IN_TENSORS = {"file", "row", "top", "finish_reason", "seed", "image"}


@pytest.fixture(params=RECIPES)
def run(request: pytest.FixtureRequest, bundles: Path, runs: Path) -> Run:
    name: str = request.param
    if not (bundles / name / "current").exists() or not (runs / name).exists():
        pytest.skip(f"{name} has no bundle or no run here: make export")
    return load_run(runs / name)


def raw_rows(run: Run) -> list[Any]:
    """Items of the test set, varied so that there are enough of them."""
    rng = np.random.default_rng(5)
    inputs = run.test.inputs
    match run.recipe.family:
        case "image-classifier":
            chosen = inputs["images"][rng.integers(0, len(inputs["images"]), NUM_ROWS)]
            shifted = [np.roll(image, rng.integers(-2, 3, 2), axis=(0, 1)) for image in chosen]
            return [base64.b64encode(png(image)).decode() for image in shifted]
        case "series-classifier" | "series-tagger":
            chosen = rng.integers(0, len(inputs["series"]), NUM_ROWS)
            rows = [inputs["series"][i, : rng.integers(1, inputs["lengths"][i] + 1)] for i in chosen]
            return [(row + rng.normal(0, 0.1, row.shape)).astype(np.float32).astype(float).tolist() for row in rows]
        case "text-classifier":
            return [text for text in (_excerpt(run, rng) for _ in range(2 * NUM_ROWS)) if text][:NUM_ROWS]
        case "language-model":
            assert run.tokenizer is not None
            tokenizer = Tokenizer.from_str(run.tokenizer)
            ids = tokenizer.encode("".join(run.test.texts)).ids
            offsets = rng.integers(0, len(ids) - 32, NUM_PROMPTS)
            return [tokenizer.decode(ids[begin : begin + rng.integers(1, 33)]) for begin in offsets]
        case _:
            return list(range(NUM_ROWS))


def _excerpt(run: Run, rng: np.random.Generator) -> str:
    """Consecutive words of a random text, at most as many as the model accepts."""
    words = run.test.texts[rng.integers(len(run.test.texts))].split()
    begin, end = sorted(rng.integers(0, len(words) + 1, 2).tolist())
    return " ".join(words[begin : min(end, begin + 100)])


def test_online_equals_offline(run: Run, http: httpx.Client, bundles: Path, tmp_path: Path) -> None:
    name, family = run.recipe.name, run.recipe.family
    rows = raw_rows(run)
    assert len(rows) == (NUM_PROMPTS if family == "language-model" else NUM_ROWS)
    source = write_jsonl(tmp_path / "rows.jsonl", {FIELD[family]: rows})
    request = {"language-model": GREEDY, "image-generator": {}}.get(family, {"top_k": 3})
    result = score(name, [source], tmp_path / "out", bundles=bundles, device="cpu", workers=2, request=request)
    assert result.failures == ()
    offline = [exact(row) for row in predictions(tmp_path / "out")]
    model = loaded(bundles, name)
    assert_equal(offline, [exact(row) for row in by_http(http, model, rows)], without={"file", "row"})
    for row in offline:
        if "image" in row:
            row["pixels"] = np.asarray(Image.open(io.BytesIO(row["image"]))).tolist()
    assert_equal(offline, [exact(row) for row in by_tensors(http, model, rows)], without=NOT_IN_TENSORS)


def loaded(bundles: Path, name: str) -> Model:
    return load_bundle(bundles / name / (bundles / name / "current").read_text().strip(), "cpu")
