"""Request and seed determine the images; every parameter has its documented effect or is refused."""

import asyncio
import base64
import secrets
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.generate import GenerateRequest, generate
from service.tasks.generation.latents import MAX_SEED, interpolate_latents, sample_latents
from service.tasks.generation.pictures import DEFAULT_STEPS, generate_grid
from tests.service.bundles import weights
from tests.service.poisoned import NAN_NAMES, POISON_SEED, read_model, write_poisoned_bundle

RunTask = Callable[..., dict[str, Any]]


def pixels(png: str | bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Pillow.open(BytesIO(base64.b64decode(png) if isinstance(png, str) else png)))


def expected_images(latents: np.ndarray) -> np.ndarray:
    """The images of latents, in float64."""
    samples = np.tanh(latents.astype(np.float64) @ weights("image-generator")["w"])
    return np.round((samples.reshape(-1, 4, 4) + 1) * 127.5)


@pytest.mark.parametrize(
    ("body", "latents"),
    [
        ({"count": 3, "seed": 4}, sample_latents(4, 3, 5)),
        ({"count": 2, "seed": 4, "truncation": 0.3}, sample_latents(4, 2, 5, 0.3)),
        (
            {"seed": 4, "seed_to": 9, "steps": 3},
            interpolate_latents(sample_latents(4, 1, 5)[0], sample_latents(9, 1, 5)[0], 3),
        ),
        (
            {"seed": 4, "seed_to": MAX_SEED, "truncation": 0.3},
            interpolate_latents(sample_latents(4, 1, 5, 0.3)[0], sample_latents(MAX_SEED, 1, 5, 0.3)[0], DEFAULT_STEPS),
        ),
    ],
)
def test_images_match_the_numpy_reference(body: dict[str, Any], latents: np.ndarray, run_task: RunTask) -> None:
    images = np.stack([pixels(png) for png in run_task("image-generator", **body)["images"]])
    assert images.shape == (len(latents), 4, 4)
    assert np.abs(images - expected_images(latents)).max() <= 1


@pytest.mark.parametrize("fields", [{}, {"truncation": 0.5}])
def test_an_image_of_a_seed_is_the_same_whatever_the_count(fields: dict[str, float], run_task: RunTask) -> None:
    many = run_task("image-generator", seed=4, count=8, **fields)["images"]
    assert len(set(many)) == 8
    for count in range(1, 8):
        assert run_task("image-generator", seed=4, count=count, **fields)["images"] == many[:count]


def test_the_ends_of_an_interpolation_are_the_first_images_of_their_seeds(run_task: RunTask) -> None:
    path = run_task("image-generator", seed=4, seed_to=9, steps=5)["images"]
    assert len(set(path)) == 5
    assert [path[0], path[-1]] == [run_task("image-generator", seed=seed)["images"][0] for seed in (4, 9)]
    assert run_task("image-generator", seed=9, seed_to=4, steps=5)["images"] == path[::-1]
    assert len(set(run_task("image-generator", seed=4, seed_to=4, steps=3)["images"])) == 1


@pytest.mark.parametrize("largest", [True, False])
def test_default_seed_is_any_valid_seed(largest: bool, run_task: RunTask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "randbelow", lambda end: end - 1 if largest else 0)
    assert run_task("image-generator")["seed"] == (MAX_SEED if largest else 0)


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"count": 9}, "/count", "expected a count of 1 to 8, got 9"),
        ({"count": 0}, "/count", "greater than or equal to 1, got 0"),
        ({"prompt": "a seven"}, "/prompt", "not a field for tiny-pictures, which takes `count`, `truncation`, `seed`,"),
        ({"stop": ["a"]}, "/stop", "not a field for tiny-pictures"),
        ({"truncation": 0.09}, "/truncation", "greater than or equal to 0.1, got 0.09"),
        ({"seed_to": -1}, "/seed_to", "greater than or equal to 0, got -1"),
        ({"seed_to": 2**53}, "/seed_to", "less than or equal to 9007199254740991"),
        ({"steps": 3}, "/steps", "expected `seed_to` beside it"),
        ({"seed_to": 1, "steps": 1}, "/steps", "greater than or equal to 2, got 1"),
        ({"seed_to": 1, "steps": 9}, "/steps", "expected 2 to 8 steps, got 9"),
        ({"seed_to": 1, "count": 2}, "/count", "not a field beside `seed_to`"),
        ({"temperature": 1.0}, "/temperature", "not a field for tiny-pictures"),
    ],
)
def test_invalid_image_request_names_field_and_expectation(
    refusal: Callable[..., tuple[str, str]], body: dict[str, Any], pointer: str, detail: str
) -> None:
    got_pointer, got_detail = refusal("image-generator", **body)
    assert got_pointer == pointer
    assert detail in got_detail


def test_grid_contains_all_images(run_task: RunTask, models: dict[str, Model], runner: Runner) -> None:
    request = GenerateRequest(model="tiny-pictures", count=2, seed=4)
    png, seed = asyncio.run(generate_grid(models["image-generator"], runner, request, runner.new_context()))
    canvas = pixels(png)
    assert seed == 4
    assert canvas.shape == (4, 4 + 2 + 4)
    first, second = (pixels(png) for png in run_task("image-generator", count=2, seed=4)["images"])
    assert np.array_equal(canvas[:, :4], first)
    assert np.array_equal(canvas[:, 6:], second)


def test_grid_contains_an_interpolation(run_task: RunTask, models: dict[str, Model], runner: Runner) -> None:
    body = {"seed": 4, "seed_to": 5, "steps": 3}
    request = GenerateRequest(model="tiny-pictures", **body)
    png, _ = asyncio.run(generate_grid(models["image-generator"], runner, request, runner.new_context()))
    last = pixels(run_task("image-generator", **body)["images"][2])
    assert np.array_equal(pixels(png)[6:, :4], last)


def test_grid_of_a_text_model_is_refused(models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match=r"/model: .* tiny-letters generates text"):
        asyncio.run(
            generate_grid(
                models["language-model"],
                runner,
                GenerateRequest(model="tiny-letters", prompt="a"),
                runner.new_context(),
            )
        )


def test_samples_that_are_not_finite_are_no_image(tmp_path: Path, runner: Runner) -> None:
    model = read_model(write_poisoned_bundle(tmp_path, "image-generator"))
    request = GenerateRequest(model=NAN_NAMES["image-generator"], count=1, seed=POISON_SEED)
    for answering in (generate, generate_grid):
        with pytest.raises(EkibenError, match="the model's output 'samples' is not finite") as caught:
            asyncio.run(answering(model, runner, request, runner.new_context()))  # type: ignore[arg-type]
        assert caught.value.slug == "not-finite"
