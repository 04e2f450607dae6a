"""Tiny bundles whose graphs compute NaN for some items, and those items.

Each graph is that of `tests.service.bundles` times a factor x / x, which is 1 except at x = 0, where it is NaN. So the
golden cases stay as they are, and the factor of one item leaves the others alone.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import parser

from service.bundle import RequestCase, open_bundle
from service.engine.sessions.model import Model, read_tokenizer
from service.engine.sessions.session import Session
from service.tasks.generation.latents import sample_latents
from service.tasks.replay import answer_request_sync
from tests.service.bundles import FAMILIES, GRAPHS, LETTERS, NAMES, OPSET, WORDS, bundle_files, weights, write_bundle
from tests.service.requests import request_body

# The first number of a series, and the second, which makes the next state of a tagger NaN: a denormal number that is
# flushed to zero becomes this one.
POISON, STATE_POISON = 77.0, 0.0
POISON_WORD, POISON_LETTER, POISON_SEED = "fish", "z", 14
POISON_BRIGHTNESS, POISON_LATENT = 16 * 255.0, 2.0  # all pixels white; a larger first latent number
FIRST_STEP = """first_step = Gather <axis = 1> (series, first)
  distances = Sub (first_step, poison)
  units = Div (distances, distances)
  unit = Gather <axis = 2> (units, first)"""
# family -> the poison, a line of its graph, and the lines instead
POISONED: dict[str, tuple[float | list[float], str, str]] = {
    "image-classifier": (
        POISON_BRIGHTNESS,
        "logits = Gemm (flat, w, b)",
        """brightness = ReduceSum (flat, second)
  distance = Sub (brightness, poison)
  unit = Div (distance, distance)
  raw = Gemm (flat, w, b)
  logits = Mul (raw, unit)""",
    ),
    "series-classifier": (
        POISON,
        "logits = MatMul (state, head)",
        f"""{FIRST_STEP}
  unit_b1 = Flatten (unit)
  raw = MatMul (state, head)
  logits = Mul (raw, unit_b1)""",
    ),
    "series-tagger": (
        [POISON, STATE_POISON],
        "logits = MatMul (y_bth, head)",
        f"""{FIRST_STEP}
  raw = MatMul (y_bth, head)
  logits = Mul (raw, unit)""",
    ),
    "text-classifier": (
        float(WORDS.index(POISON_WORD)),
        "logits = MatMul (state, head)",
        """first_id = Gather <axis = 1> (ids, first)
  number = Cast <to = 1> (first_id)
  distance = Sub (number, poison)
  unit = Div (distance, distance)
  raw = MatMul (state, head)
  logits = Mul (raw, unit)""",
    ),
    "language-model": (
        float(LETTERS.index(POISON_LETTER)),
        "logits = MatMul (x_2, head)",
        """numbers = Cast <to = 1> (ids)
  distance = Sub (numbers, poison)
  unit_bs = Div (distance, distance)
  unit = Unsqueeze (unit_bs, third)
  raw = MatMul (x_2, head)
  logits = Mul (raw, unit)""",
    ),
    "image-generator": (
        POISON_LATENT,
        "mixed = MatMul (latents, w)",
        """first_latent = Gather <axis = 1> (latents, first)
  distance = Sub (poison, first_latent)
  root = Sqrt (distance)
  unit = Div (root, root)
  raw = MatMul (latents, w)
  mixed = Mul (raw, unit)""",
    ),
}
STATE = (
    "next_c = Transpose <perm = [1, 0, 2]> (last_c)",
    """state_unit = Gather <axis = 2> (units, second)
  raw_c = Transpose <perm = [1, 0, 2]> (last_c)
  next_c = Mul (raw_c, state_unit)""",
)
NAN_NAMES = {family: f"{name}-nan" for family, name in NAMES.items()}
# The first output that is not finite for a poisoned item.
NAN_OUTPUT = dict.fromkeys(FAMILIES, "probabilities") | {"language-model": "logits", "image-generator": "samples"}


def poisoned_graph(family: str) -> bytes:
    poison, line, lines = POISONED[family]
    graph = GRAPHS[family].strip()
    for old, new in [(line, lines), *([STATE] if family == "series-tagger" else [])]:
        assert graph.count(old) == 1
        graph = graph.replace(old, new)
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\npoisoned {graph}')
    constants = {
        "poison": np.asarray(poison, np.float32),
        **{name: [i] for i, name in enumerate(("first", "second", "third"))},
    }
    initializers = {**weights(family), **{name: np.asarray(value) for name, value in constants.items()}}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in initializers.items())
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def read_model(folder: Path) -> Model:
    bundle = open_bundle(folder)
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    return Model(manifest=bundle.manifest, session=session, tokenizer=read_tokenizer(bundle))


def write_whole_bundle(root: Path, family: str, name: str, *, model: bytes | None = None, **fields: Any) -> Path:
    """Write a bundle of this name whose request case was answered by its own graph."""
    body = {**request_body(family), "model": name}
    unanswered = bundle_files(family, requests=[RequestCase(request=body, answer={})], model=model)
    candidate = read_model(write_bundle(root / "candidates", family, files=unanswered, name=name, **fields))
    case = RequestCase(request=body, answer=answer_request_sync(candidate, body))
    files = bundle_files(family, requests=[case], model=model)
    return write_bundle(root / "bundles", family, files=files, name=name, **fields)


def write_poisoned_bundle(root: Path, family: str) -> Path:
    return write_whole_bundle(root, family, NAN_NAMES[family], model=poisoned_graph(family))


def poisoned_item(family: str) -> Any:
    """An item, in the form that a request holds it, for which the graph computes NaN."""
    return {
        "image-classifier": [[255] * 4] * 4,
        "series-classifier": [[POISON, 0.5], [0.25, 1.0]],
        "series-tagger": [[POISON, 0.5], [0.25, 1.0]],
        "text-classifier": f"{POISON_WORD} train",
        "language-model": f"the {POISON_LETTER}",
        "image-generator": POISON_SEED,
    }[family]


def healthy_item(family: str) -> Any:
    return {
        "image-classifier": [[7, 8, 9, 250]] * 4,
        "series-classifier": [[0.5, 1.5]],
        "series-tagger": [[0.5, 1.5]],
        "text-classifier": "the train",
        "language-model": "the tr",
        "image-generator": 3,
    }[family]


def native_body(family: str, name: str, items: list[Any]) -> dict[str, Any]:
    """The request for these items; for an image generator one item is the seed of one image."""
    match family:
        case "image-classifier":
            fields: dict[str, Any] = {"images": items}
        case "text-classifier":
            fields = {"texts": items}
        case "language-model":
            fields = {"prompt": items, "max_tokens": 3, "seed": 3}
        case "image-generator":
            fields = {"seed": items[0], "count": 1}
        case _:
            fields = {"sequences": items}
    return {"model": name, **fields}


def tensors(family: str, items: list[Any]) -> dict[str, Any]:
    """The same items as input tensors."""
    count = len(items)
    match family:
        case "image-classifier":
            return {"images": np.array(items, np.uint8)}
        case "text-classifier":
            rows = [[WORDS.index(word) for word in item.split()] for item in items]
            return {"ids": np.array(rows), "lengths": np.full(count, len(rows[0]))}
        case "language-model":
            rows = [[LETTERS.index(letter) for letter in item.ljust(6)] for item in items]
            past = {
                f"past_{kind}_{i}": np.zeros((count, 2, 0, 4), np.float32) for i in (0, 1) for kind in ("key", "value")
            }
            return {"ids": np.array(rows), "past_lengths": np.zeros(count, np.int64), **past}
        case "image-generator":
            return {"latents": np.concatenate([sample_latents(seed, 1, 5) for seed in items])}
    steps = max(map(len, items))
    series = np.array([[*item, *[[0.0, 0.0]] * (steps - len(item))] for item in items], np.float32)
    inputs = {"series": series, "lengths": np.array([len(item) for item in items])}
    if family == "series-tagger":
        inputs |= {name: np.zeros((count, 1, 3), np.float32) for name in ("h", "c")}
    return inputs
