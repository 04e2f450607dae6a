"""A classifier of pictures gives what the model gives for the pixel values of its own image processor."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification

from export.errors import ExportError
from export.sources.huggingface.vision import read_pictures
from service.tasks.codecs.picture_size import resize_image
from tests.export.sources.huggingface.conftest import Exports
from tests.export.sources.huggingface.folders import pictures, save, vit, write_json

SQUARE = {"height": 16, "width": 16}
PROCESSORS: dict[str, Any] = {
    "squeezed": transformers.ViTImageProcessorPil(size=SQUARE),
    "scaled and cropped": transformers.CLIPImageProcessorPil(size={"shortest_edge": 20}, crop_size=SQUARE),
    "cropped by a share": transformers.ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.7),
    "not rescaled": transformers.ViTImageProcessorPil(size=SQUARE, do_rescale=False, do_normalize=False, resample=0),
}


@pytest.mark.parametrize("size", [(40, 52), (61, 33)])
def test_the_graph_equals_the_model_on_pictures_of_any_size(size: tuple[int, int], exports: Exports) -> None:
    folder, source, graph = exports("vit")
    batch = pictures(3, size=size)
    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")(list(batch), return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForImageClassification.from_pretrained(folder)(**pixels).logits
    resized = np.stack([np.array(resize_image(Image.fromarray(picture), source.reader, "")) for picture in batch])
    outputs = graph.run({"images": resized})
    np.testing.assert_allclose(outputs["logits"], logits, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"], logits.softmax(-1), atol=1e-5)


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixel_values_are_those_of_the_processor(name: str, tmp_path: Path) -> None:
    model = vit()
    folder = save(tmp_path / "vit", model, PROCESSORS[name])
    reader, classifier = read_pictures(folder, model)
    assert (reader.height, reader.width, reader.mode) == (16, 16, "RGB")
    assert reader.resize is not None
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    # Scaled to 20, the margins of these widths have every remainder by 4: halves are rounded as the processor does it.
    sizes = [(70, 31), *((20, width) for width in range(25, 29))]
    for picture in (*pictures(1), *(pictures(1, size=size)[0] for size in sizes)):
        expected = processor(Image.fromarray(picture))["pixel_values"][0]
        resized = np.array(resize_image(Image.fromarray(picture), reader, ""))
        computed = classifier.pixel_values(torch.from_numpy(resized)[None])[0]
        np.testing.assert_allclose(computed, expected, atol=1e-5)


def test_pictures_of_one_channel_are_grey(tmp_path: Path) -> None:
    model = vit(channels=1)
    processor = transformers.ViTImageProcessorPil(size=SQUARE, image_mean=[0.4], image_std=[0.2])
    reader, classifier = read_pictures(save(tmp_path / "vit", model, processor), model)
    assert reader.mode == "L"
    logits, _ = classifier(torch.zeros(2, 16, 16, dtype=torch.uint8))
    assert logits.shape == (2, 4)


def test_without_a_resize_the_pictures_have_the_size_of_the_model(tmp_path: Path) -> None:
    model = vit()
    folder = save(tmp_path / "vit", model, transformers.ViTImageProcessorPil(do_resize=False))
    reader, _ = read_pictures(folder, model)
    assert (reader.height, reader.width, reader.resize) == (16, 16, None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"size": {"shortest_edge": 16, "longest_edge": 32}}, "expected height and width, or shortest_edge alone"),
        ({"size": {"shortest_edge": 20}}, "needs a crop"),
        ({"image_mean": [0.5, 0.5]}, "expected 3"),
        ({"do_pad": True, "pad_size": {"height": 20, "width": 20}}, "does more than scale, crop and normalise"),
    ],
)
def test_a_processor_that_does_something_else_is_refused(settings: dict[str, Any], reason: str, tmp_path: Path) -> None:
    model = vit()
    folder = save(tmp_path / "vit", model, PROCESSORS["squeezed"])
    saved = json.loads((folder / "preprocessor_config.json").read_text())
    write_json(folder / "preprocessor_config.json", saved | settings)
    with pytest.raises(ExportError, match=reason):
        read_pictures(folder, model)


def test_a_folder_without_a_processor_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"holds no preprocessor_config.json"):
        read_pictures(tmp_path, vit())
