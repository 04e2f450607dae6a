"""Classifiers of pictures: preprocessor_config.json as a declared resize, and the rest of it as nodes of the graph.

Invariant: a picture that the service resizes as declared gives the pixel values that the folder's own image processor
computes.

Shapes: B batch, H height, W width, C channels.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from transformers import AutoImageProcessor, PreTrainedModel

from export.errors import ExportError
from export.sources.huggingface.loading import ANOTHER_WAY, STAGE, readable_errors, silent
from export.sources.huggingface.precision import in_precision_of
from service.contract.readers import ImageReader, Resize
from service.tasks.codecs.picture_size import resize_image

PREPROCESSOR = "preprocessor_config.json"
# Below this size, ConvNeXT's processor scales the shorter edge and crops; from it on, it scales both edges.
CROPS_BELOW = 384
# Height and width of the pictures with which the declared preprocessing is compared: wide and tall, and margins of each
# remainder by 4, because processors round halves differently.
PROBE_SIZES = ((211, 307), (211, 308), (211, 309), (211, 310), (310, 209))
PROBE_TOLERANCE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """A resize that the reader declares, then pixels * scale, minus mean, divided by std (of each channel)."""

    resize: Resize | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


class PictureClassifier(nn.Module):
    """images uint8 [B, H, W, 3], or [B, H, W] if the model has one channel -> (logits, probabilities)."""

    def __init__(self, model: PreTrainedModel, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.scale = model, preprocessing.scale
        self.mean = nn.Buffer(torch.tensor(preprocessing.mean)[:, None, None])
        self.std = nn.Buffer(torch.tensor(preprocessing.std)[:, None, None])

    def pixel_values(self, images: Tensor) -> Tensor:
        """The float tensor [B, C, H, W] that the model takes."""
        channels_first = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return (channels_first.to(self.mean.dtype) * self.scale - self.mean) / self.std

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        [images] = inputs
        with in_precision_of(self.model):
            logits: Tensor = self.model(pixel_values=self.pixel_values(images)).logits
        return logits, logits.softmax(-1)


def read_pictures(folder: Path, model: PreTrainedModel) -> tuple[ImageReader, PictureClassifier]:
    """The reader and the graph of a classifier of pictures. Raises ExportError if its processor does something else."""
    if not (folder / PREPROCESSOR).is_file():
        raise ExportError(STAGE, f"{folder} holds no {PREPROCESSOR}, which says how pictures become tensors")
    with silent(), readable_errors(folder):
        processor: Any = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, backend="pil"
        )
    channels: int = getattr(model.config, "num_channels", 3)
    if channels not in {1, 3}:
        raise ExportError(STAGE, f"{folder}: the model takes {channels} channels, expected 1 or 3")
    try:
        preprocessing = _read_processor(processor, channels)
        height, width = preprocessing.resize.result if preprocessing.resize else _fixed_size(model)
        reader = ImageReader(
            height=height, width=width, mode="RGB" if channels == 3 else "L", resize=preprocessing.resize
        )
    except (ValidationError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise ExportError(STAGE, f"{folder / PREPROCESSOR}: {reason[:300]}; {ANOTHER_WAY}") from error
    classifier = PictureClassifier(model, preprocessing)
    _compare_with(processor, reader, classifier, folder)
    return reader, classifier


def _read_processor(processor: Any, channels: int) -> Preprocessing:
    normalizes, rescales = bool(processor.do_normalize), bool(processor.do_rescale)

    def values(name: str, neutral: float) -> tuple[float, ...]:
        value = getattr(processor, name) if normalizes else neutral
        return (float(value),) * channels if isinstance(value, int | float) else tuple(map(float, value))

    mean, std = values("image_mean", 0.0), values("image_std", 1.0)
    if len(mean) != channels or len(std) != channels:
        raise ValueError(f"image_mean and image_std have {len(mean)} and {len(std)} values, expected {channels}")
    return Preprocessing(
        resize=_read_resize(processor), scale=float(processor.rescale_factor) if rescales else 1.0, mean=mean, std=std
    )


def _read_resize(processor: Any) -> Resize | None:
    if not processor.do_resize:
        return None
    size, resample = dict(processor.size), Image.Resampling(int(processor.resample)).name.lower()
    crop = None
    if getattr(processor, "do_center_crop", False):
        crop = (processor.crop_size["height"], processor.crop_size["width"])
    if (height := size.get("height")) and (width := size.get("width")):
        return Resize(size=(height, width), crop=crop, resample=resample, halves="down")
    edge = size.get("shortest_edge")
    if not edge or size.get("longest_edge"):
        raise ValueError(f"size is {size}, expected height and width, or shortest_edge alone")
    share = getattr(processor, "crop_pct", None)
    if share is None:
        return Resize(shortest_edge=edge, crop=crop, resample=resample, halves="down")
    if edge >= CROPS_BELOW:
        return Resize(size=(edge, edge), crop=crop, resample=resample, halves="down")
    return Resize(shortest_edge=int(edge / share), crop=crop or (edge, edge), resample=resample, halves="down")


def _fixed_size(model: PreTrainedModel) -> tuple[int, int]:
    size = getattr(model.config, "image_size", None)
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return size[0], size[1]
    raise ValueError("the processor resizes nothing, and config.json gives no image_size")


def _compare_with(processor: Any, reader: ImageReader, classifier: PictureClassifier, folder: Path) -> None:
    """Refuse a processor that computes other pixel values for a picture than the reader and the graph."""
    channels = (3,) if reader.mode == "RGB" else ()
    sizes = PROBE_SIZES if reader.resize else (reader.fixed_shape[:2],)
    for size in sizes:
        picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, *channels), np.uint8))
        with silent(), readable_errors(folder):
            expected = torch.from_numpy(np.asarray(processor(picture)["pixel_values"][0], np.float32))
        resized = np.array(resize_image(picture, reader, ""))
        computed = classifier.pixel_values(torch.from_numpy(resized)[None])[0]
        if computed.shape != expected.shape or not torch.allclose(computed, expected, rtol=0, atol=PROBE_TOLERANCE):
            raise ExportError(
                STAGE,
                f"{folder / PREPROCESSOR}: {type(processor).__name__} does more than scale, crop and normalise "
                f"pictures; {ANOTHER_WAY}",
            )
