"""POST /generate for models of images: from seeds to pixels.

Invariant: model version, request and seed determine the images; image i of a seed is the same whatever the count.
"""

import base64
import secrets

import numpy as np
import numpy.typing as npt
from pydantic import Field

from service.contract.heads import LanguageModelHead
from service.engine.context import RequestContext
from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.manifest import Manifest
from service.tasks.body import RequestBody, check_unused_fields
from service.tasks.codecs.images import encode_png, make_grid
from service.tasks.faults import fault, type_fault
from service.tasks.generation.latents import MAX_SEED, MIN_TRUNCATION, Latents, interpolate_latents, sample_latents

IMAGE_FIELDS = ("count", "truncation", "seed_to", "steps")
DEFAULT_STEPS = 8


class ImageRequest(RequestBody):
    """The fields of a request for images; the seed is that of texts too."""

    count: int | None = Field(default=None, ge=1, description="image models: number of images (default 1)")
    truncation: float | None = Field(
        default=None,
        ge=MIN_TRUNCATION,
        description="image models: redraw latents above this magnitude; lower is more typical and less varied",
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="the same seed gives the same answer")
    seed_to: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="image models: interpolate from the first image of `seed` to the first image of this seed",
    )
    steps: int | None = Field(
        default=None,
        ge=2,
        description=f"image models: number of images of an interpolation, with both ends (default {DEFAULT_STEPS})",
    )


def resolve_seed(request: ImageRequest) -> int:
    """Return the seed of the request, or a random one."""
    return secrets.randbelow(MAX_SEED + 1) if request.seed is None else request.seed


async def generate_images(
    model: Model, runner: Runner, request: ImageRequest, seed: int, context: RequestContext
) -> list[str]:
    """Return the images of the request as base64 of PNG."""
    images_BHW = await _generate(model, runner, request, seed, context)
    return [base64.b64encode(encode_png(image_HW)).decode() for image_HW in images_BHW]


async def generate_grid(
    model: Model, runner: Runner, request: ImageRequest, context: RequestContext
) -> tuple[bytes, int]:
    """Return all images of the request in one PNG, and their seed."""
    if isinstance(model.manifest.head, LanguageModelHead):
        raise fault("/model", f"expected an image model for `Accept: image/png`, {model.manifest.name} generates text")
    seed = resolve_seed(request)
    return encode_png(make_grid(await _generate(model, runner, request, seed, context))), seed


async def _generate(
    model: Model, runner: Runner, request: ImageRequest, seed: int, context: RequestContext
) -> npt.NDArray[np.uint8]:
    text_fields = [name for name in type(request).model_fields if name not in {*ImageRequest.model_fields, "model"}]
    accepted = "`count`, `truncation`, `seed`, `seed_to` and `steps`"
    check_unused_fields(text_fields, request.model_fields_set, model.manifest, accepted)
    latents_BZ = _latents(request, seed, model.manifest)
    outputs = await runner.run(model.session, {"latents": latents_BZ}, ["images"], context=context, items="/images")
    return outputs["images"]


def _latents(request: ImageRequest, seed: int, manifest: Manifest) -> Latents:
    """Return the latents [images, size] of the request; raises EkibenError for fields that do not fit together."""
    max_images = manifest.limits.max_items
    [spec] = manifest.inputs  # float32 [batch, size]: see `is_latent_generator`
    size = spec.shape[1]
    assert isinstance(size, int)
    if request.seed_to is None:
        if request.steps is not None:
            raise fault("/steps", "expected `seed_to` beside it: the steps are those of an interpolation")
        count = 1 if request.count is None else request.count
        if count > max_images:
            raise type_fault("/count", f"a count of 1 to {max_images}", count)
        return sample_latents(seed, count, size, request.truncation)
    if request.count is not None:
        raise fault("/count", "not a field beside `seed_to`: `steps` is the number of images of an interpolation")
    steps = min(DEFAULT_STEPS, max_images) if request.steps is None else request.steps
    if not 2 <= steps <= max_images:
        raise type_fault("/steps", f"2 to {max_images} steps", steps)
    [first_Z], [last_Z] = (sample_latents(end, 1, size, request.truncation) for end in (seed, request.seed_to))
    return interpolate_latents(first_Z, last_Z, steps)
