"""Goldens that cannot tell the graph from one with shuffled weights are refused."""

import dataclasses
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from service.bundle import Bundle, GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification import golden_strength
from service.engine.verification.golden_strength import check_golden_strength
from service.errors import BundleError
from service.manifest import ValueRange
from tests.service.bundles import FAMILIES, WORDS, example_inputs, onnx_model

Sessions = dict[str, Session]
Bundles = dict[str, Bundle]


def with_goldens(bundle: Bundle, session: Session, *inputs: dict[str, np.ndarray]) -> Bundle:
    """The bundle with the graph's own outputs for these inputs as goldens, so that a replay passes."""
    cases = tuple(GoldenCase(inputs=batch, outputs=session.run(batch)) for batch in inputs)
    return dataclasses.replace(bundle, golden=cases)


def pictures(*levels: int) -> dict[str, np.ndarray]:
    return {"images": np.stack([np.full((4, 4), level, np.uint8) for level in levels])}


@pytest.mark.parametrize("family", FAMILIES)
def test_goldens_of_random_items_are_strong(family: str, bundles: Bundles, sessions: Sessions) -> None:
    check_golden_strength(sessions[family], bundles[family])


@pytest.mark.parametrize(
    "inputs",
    [
        pictures(0),
        pictures(0, 255, 128, 7),
        {"images": np.repeat(example_inputs("image-classifier", batch=1)["images"], 6, axis=0)},
    ],
    ids=["one black picture", "blank pictures", "copies of one picture"],
)
def test_blank_and_repeated_rows_do_not_count(
    inputs: dict[str, np.ndarray], bundles: Bundles, sessions: Sessions
) -> None:
    bundle = with_goldens(bundles["image-classifier"], sessions["image-classifier"], inputs)
    with pytest.raises(BundleError, match=r"too few, too weak goldens: [01] rows that are not blank"):
        check_golden_strength(sessions["image-classifier"], bundle)


def changed(images: np.ndarray, *positions: tuple[int, ...]) -> dict[str, np.ndarray]:
    for position in positions:
        images[position] += 1
    return {"images": images}


@pytest.mark.parametrize(
    "images",
    [
        changed(np.zeros((3, 4, 4), np.uint8), (0, 0, 0), (1, 0, 1), (2, 1, 0)),
        changed(
            np.repeat(example_inputs("image-classifier", batch=1)["images"], 3, axis=0) % 200, (1, 0, 0), (2, 3, 3)
        ),
    ],
    ids=["black pictures with one faint pixel", "one picture with one pixel changed by one"],
)
def test_rows_with_nearly_equal_outputs_do_not_count(
    images: dict[str, np.ndarray], bundles: Bundles, sessions: Sessions
) -> None:
    bundle = with_goldens(bundles["image-classifier"], sessions["image-classifier"], images)
    with pytest.raises(
        BundleError, match=r"[12] rows that are not blank and have different outputs, expected at least 3"
    ):
        check_golden_strength(sessions["image-classifier"], bundle)


def test_every_pixel_varies_over_the_rows(bundles: Bundles, sessions: Sessions) -> None:
    images = example_inputs("image-classifier", batch=8)["images"].copy()
    images[:, 2, 1] = 9
    bundle = with_goldens(bundles["image-classifier"], sessions["image-classifier"], {"images": images})
    with pytest.raises(BundleError, match=r"too weak goldens: input 'images' hardly varies at \[2, 1\]"):
        check_golden_strength(sessions["image-classifier"], bundle)


def test_padding_does_not_make_a_channel_vary(bundles: Bundles, sessions: Sessions) -> None:
    inputs = example_inputs("series-classifier", batch=8)
    series = inputs["series"].copy()
    for row, length in zip(series, inputs["lengths"], strict=True):
        row[:length, 1] = 0.5
        row[length:, 1] = 7
    bundle = with_goldens(bundles["series-classifier"], sessions["series-classifier"], {**inputs, "series": series})
    with pytest.raises(BundleError, match=r"input 'series' hardly varies at \[1\]"):
        check_golden_strength(sessions["series-classifier"], bundle)


def test_single_steps_do_not_prove_recurrent_weights(bundles: Bundles, sessions: Sessions) -> None:
    words = {"ids": np.arange(8)[:, None] % len(WORDS), "lengths": np.ones(8, np.int64)}
    bundle = with_goldens(bundles["text-classifier"], sessions["text-classifier"], words)
    with pytest.raises(BundleError, match=r"tensor 'r' \[1, 3, 3\] is shuffled along axis 1"):
        check_golden_strength(sessions["text-classifier"], bundle)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tensor_without_consequence_needs_no_golden(family: str, bundles: Bundles, sessions: Sessions) -> None:
    """A shuffle that changes no output, whatever the input, is not the fault of the goldens."""
    model = onnx_model(family)
    model = type(model).FromString(model.SerializeToString())
    unused = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    model.graph.initializer.append(numpy_helper.from_array(unused, "unused"))
    bundle = dataclasses.replace(bundles[family], model=model.SerializeToString())
    check_golden_strength(sessions[family], bundle)


def test_large_graphs_are_sampled(bundles: Bundles, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden_strength, "MAX_SHUFFLED_BYTES", 1)
    monkeypatch.setattr(golden_strength, "MIN_SHUFFLES", 2)
    made = []

    def count(*args: object, **kwargs: object) -> Session:
        made.append(args)
        return Session(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(golden_strength, "Session", count)
    check_golden_strength(sessions["language-model"], bundles["language-model"])
    assert len(made) == 2


def test_every_slice_is_moved_even_of_two(
    bundles: Bundles, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {"two columns": (1, 9, 2), "two rows": (2, 1, 9), "vector": (11,)}
    model = type(onnx_model("image-classifier")).FromString(bundles["image-classifier"].model)
    for name, shape in shapes.items():
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    shuffled: dict[str, list[np.ndarray]] = {name: [] for name in shapes}

    def record(content: bytes, **options: object) -> Session:
        for tensor in onnx.load_from_string(content).graph.initializer:
            values = numpy_helper.to_array(tensor)
            if tensor.name in shapes and (np.diff(values.ravel()) != 1).any():
                shuffled[tensor.name].append(values.squeeze())
        return Session(content, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(golden_strength, "Session", record)
    bundle = dataclasses.replace(bundles["image-classifier"], model=model.SerializeToString())
    check_golden_strength(sessions["image-classifier"], bundle)
    (columns, rows), (more_columns, more_rows), (vector,) = shuffled.values()
    whole = np.arange(18, dtype=np.float32)
    np.testing.assert_array_equal(columns, whole.reshape(9, 2)[:, ::-1])
    np.testing.assert_array_equal(more_rows, whole.reshape(2, 9)[::-1])
    for moved, original in ((rows, whole.reshape(9, 2)), (more_columns, whole.reshape(2, 9)), (vector, whole[:11])):
        assert (moved != original).all()
        np.testing.assert_array_equal(np.sort(moved.ravel()), original.ravel())


def test_random_inputs_are_within_the_domain(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = bundles["image-generator"]
    domain = {"latents": ValueRange(low=-0.5, high=0.25)}
    manifest = bundle.manifest.model_copy(update={"domain": domain})
    latents: list[np.ndarray] = []

    class RecordingSession(Session):
        def run(self, inputs: Any, outputs: Any = None) -> Any:
            latents.append(inputs["latents"])
            return super().run(inputs, outputs)

    model = type(onnx_model("image-generator")).FromString(bundle.model)
    model.graph.initializer.append(numpy_helper.from_array(np.arange(9, dtype=np.float32), "unused"))
    bundle = dataclasses.replace(bundle, model=model.SerializeToString(), manifest=manifest)
    check_golden_strength(RecordingSession(bundle.model, manifest=manifest, device="cpu"), bundle)
    assert latents
    assert (min(map(np.min, latents)), max(map(np.max, latents))) == (-0.5, 0.25)


def test_golden_rows_notice_what_rounding_does_not_explain(bundles: Bundles, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that hides everything, the limit of rounding alone tells the graphs apart."""
    bundle = bundles["image-classifier"]
    tolerance = {
        name: tolerance.model_copy(update={"atol": 100.0, "rounding": 1e-6})
        for name, tolerance in bundle.manifest.tolerance.items()
    }
    manifest = bundle.manifest.model_copy(update={"tolerance": tolerance})
    is_consequential = golden_strength._is_consequential
    asked: list[bool] = []

    def ask(session: Session, shuffled: Session) -> bool:
        asked.append(is_consequential(session, shuffled))
        return asked[-1]

    monkeypatch.setattr(golden_strength, "_is_consequential", ask)
    session = Session(bundle.model, manifest=manifest, device="cpu")
    check_golden_strength(session, dataclasses.replace(bundle, manifest=manifest))
    assert asked == [], "the goldens notice every shuffle"
