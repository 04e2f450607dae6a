"""For every model, answers over HTTP on held-back items equal those of the trained PyTorch model."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from tokenizers import Tokenizer

from service.tasks.codecs.series import pad_rows
from service.tasks.generation.latents import sample_latents
from training.checkpoint import Run, load_run
from training.families import FAMILIES
from training.models import RECIPES

NUM_ITEMS = 200


@pytest.fixture(params=RECIPES)
def run(request: pytest.FixtureRequest, bundles: Path, runs: Path) -> Iterator[Run]:
    name: str = request.param
    if not (bundles / name / "current").exists() or not (runs / name).exists():
        pytest.skip(f"{name} has no bundle or no run here: make export")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load_run(runs / name)
    torch.set_num_threads(threads)


def post(http: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def reference(run: Run, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """The outputs of the PyTorch model."""
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
    outputs = FAMILIES[run.recipe.family].predict(run.model, tensors)
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def assert_within_tolerance(
    http: httpx.Client, run: Run, output: str, server: Any, expected: Any, *, factor: float = 1
) -> None:
    """Compare with `factor` times the tolerance that the bundle declares for the output."""
    parity = http.get(f"/models/{run.recipe.name}").json()["parity"][output]
    np.testing.assert_allclose(server, expected, atol=factor * parity["atol"], rtol=factor * parity["rtol"])


def batches(items: Sequence[Any], run: Run) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), run.recipe.max_items):
        yield items[start : start + run.recipe.max_items]


def predictions(http: httpx.Client, run: Run, path: str, field: str, items: Sequence[Any], **fields: Any) -> list[Any]:
    answers = [post(http, path, model=run.recipe.name, **{field: batch}, **fields) for batch in batches(items, run)]
    return [prediction for answer in answers for prediction in answer["predictions"]]


def check_labels(http: httpx.Client, run: Run, server: list[Any], expected_BL: np.ndarray[Any, Any]) -> None:
    labels = run.checkpoint.labels
    assert [item["label"] for item in server] == [labels[i] for i in expected_BL.argmax(axis=-1)]
    assert_within_tolerance(
        http, run, "probabilities", [item["probability"] for item in server], expected_BL.max(axis=-1)
    )


def test_answers_equal_those_of_the_trained_model(run: Run, http: httpx.Client) -> None:
    match run.recipe.family:
        case "image-classifier":
            check_images(run, http)
        case "series-classifier" | "series-tagger":
            check_series(run, http)
        case "text-classifier":
            check_texts(run, http)
        case "language-model":
            check_completions(run, http)
        case "image-generator":
            check_generated_images(run, http)


def check_images(run: Run, http: httpx.Client) -> None:
    images = run.test.inputs["images"][:NUM_ITEMS]
    server = predictions(http, run, "/classify", "images", images.tolist())
    assert len(server) == len(images)
    check_labels(http, run, server, reference(run, images=images)["probabilities"])


def check_series(run: Run, http: httpx.Client) -> None:
    series, lengths = (run.test.inputs[name][:NUM_ITEMS] for name in ("series", "lengths"))
    rows = [row[:length].tolist() for row, length in zip(series, lengths, strict=True)]
    server = predictions(http, run, "/sequence-predict", "sequences", rows)
    expected = reference(run, series=series, lengths=lengths)["probabilities"]
    if run.recipe.family == "series-classifier":
        return check_labels(http, run, server, expected)
    for prediction, row, length in zip(server, expected, lengths, strict=True):
        check_labels(http, run, prediction["steps"], row[:length])
    return check_labels(http, run, server, expected[np.arange(len(lengths)), lengths - 1])


def check_texts(run: Run, http: httpx.Client) -> None:
    """Training may truncate texts to fewer tokens than the service reads."""
    assert run.tokenizer is not None
    texts = list(run.test.texts[:NUM_ITEMS])
    rows = [encoding.ids[: run.recipe.max_steps] for encoding in Tokenizer.from_str(run.tokenizer).encode_batch(texts)]
    for row, trained, length in zip(rows, run.test.inputs["ids"], run.test.inputs["lengths"], strict=False):
        assert row[:length] == trained[:length].tolist()
    ids, lengths = pad_rows(rows, np.int64)
    server = predictions(http, run, "/sequence-predict", "texts", texts, truncate=True)
    assert [item["tokens"] for item in server] == lengths.tolist()
    check_labels(http, run, server, reference(run, ids=ids, lengths=lengths)["probabilities"])


def check_completions(run: Run, http: httpx.Client) -> None:
    """Greedy text and its log probabilities, against full forward passes without a cache."""
    assert run.tokenizer is not None
    tokenizer, num_new = Tokenizer.from_str(run.tokenizer), 8
    ids = tokenizer.encode("".join(run.test.texts)).ids
    windows = [ids[i : i + 16] for i in range(0, len(ids) - 16, 7)]
    # Tokens that begin or end within a word may be merged in another way.
    windows = [window for window in windows if tokenizer.encode(tokenizer.decode(window)).ids == window]
    windows = [windows[i] for i in np.linspace(0, len(windows) - 1, NUM_ITEMS).astype(int)]
    prompts = [tokenizer.decode(window) for window in windows]
    answers = [
        post(http, "/generate", model=run.recipe.name, prompt=batch, max_tokens=num_new, temperature=0, logprobs=True)
        for batch in batches(prompts, run)
    ]
    server = [completion for answer in answers for completion in answer["completions"]]
    rows_BT = np.array(windows)
    chosen = []
    for _ in range(num_new):
        logits_BV = reference(run, ids=rows_BT)["logits"][:, -1].astype(np.float64)
        best_B = logits_BV.argmax(axis=-1)
        shifted_BV = logits_BV - logits_BV.max(axis=-1, keepdims=True)
        chosen.append(-np.log(np.exp(shifted_BV).sum(axis=-1)))
        rows_BT = np.concatenate([rows_BT, best_B[:, None]], axis=1)
    assert [item["text"] for item in server] == [tokenizer.decode(row[16:].tolist()) for row in rows_BT]
    logprobs = [[entry["logprob"] for entry in item["logprobs"]] for item in server]
    assert_within_tolerance(http, run, "logits", logprobs, np.stack(chosen, axis=1), factor=2)


def check_generated_images(run: Run, http: httpx.Client) -> None:
    import base64
    from io import BytesIO

    count = run.recipe.max_items
    for seed in range(-(-NUM_ITEMS // count)):
        pngs = post(http, "/generate", model=run.recipe.name, count=count, seed=seed)["images"]
        server = np.stack([np.asarray(Pillow.open(BytesIO(base64.b64decode(png)))) for png in pngs]).astype(int)
        size = run.test.inputs["latents"].shape[1]
        difference = np.abs(server - reference(run, latents=sample_latents(seed, count, size))["images"])
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 1e-3
