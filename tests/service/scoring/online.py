"""Two clients that request from a service what scoring computes: one uses the native endpoints, one sends tensors.

The tensor client is what a user of the Open Inference Protocol has to write: it tokenises, pads, keeps the caches of a
decoder itself and ranks the probabilities.
"""

import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from service.contract.heads import ImageHead, LanguageModelHead
from service.contract.readers import ImageReader, SeriesReader, TextReader
from service.engine.generation.kv_cache import cache_capacity
from service.engine.generation.logits import log_probability
from service.engine.sessions.model import Model
from service.tasks.codecs.images import read_image
from service.tasks.codecs.series import pad_rows
from service.tasks.codecs.states import pack_state
from service.tasks.generation.latents import sample_latents

Array = npt.NDArray[Any]
Answer = dict[str, Any]
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
MAX_TOKENS = 5
GREEDY = {"max_tokens": MAX_TOKENS, "temperature": 0, "logprobs": True, "seed": 0}
LISTS = {"image": "images", "text": "texts"}


def chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[begin : begin + size] for begin in range(0, len(rows), size))


def exact(answer: Mapping[str, Any]) -> Answer:
    """Replace every probability by the bits of its float32, which its JSON form determines."""
    return {name: _exact(name, value) for name, value in answer.items()}


def _exact(name: str, value: Any) -> Any:
    if isinstance(value, list):
        return [exact(item) if isinstance(item, dict) else item for item in value]
    return np.float32(value).tobytes().hex() if name == "probability" else value


def by_http(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    """The answers of the native endpoints, with the three most probable labels."""
    manifest, size = model.manifest, model.manifest.limits.max_items
    named = {"model": manifest.name}
    match manifest.head:
        case LanguageModelHead():
            bodies = [{**named, **GREEDY, "prompt": part} for part in chunks(rows, size)]
            answers = [_post(client, "/generate", body)["completions"] for body in bodies]
            return [{**answer, "seed": 0} for part in answers for answer in part]
        case ImageHead():
            pictures = [_post(client, "/generate", {**named, "count": 1, "seed": seed})["images"] for seed in rows]
            return [
                {"image": base64.b64decode(image), "seed": seed} for seed, [image] in zip(rows, pictures, strict=True)
            ]
        case _:
            path = "/classify" if manifest.task == "classify" else "/sequence-predict"
            field = LISTS.get(manifest.reader.kind, "sequences")
            bodies = [{**named, "top_k": 3, field: part} for part in chunks(rows, size)]
            return [answer for body in bodies for answer in _post(client, path, body)["predictions"]]


def by_tensors(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    """The same answers, computed from the outputs of the graph; fields that no output holds are missing."""
    manifest, size = model.manifest, model.manifest.limits.max_items
    answer: Callable[[httpx.Client, Model, Sequence[Any]], list[Answer]]
    if isinstance(manifest.head, LanguageModelHead):
        # The caches are large.
        answer, size = _generated, 4
    elif isinstance(manifest.head, ImageHead):
        answer = _images
    else:
        answer = _stateful_row if manifest.pair == "series -> token-labels" else _classified
    return [found for part in chunks(rows, size) for found in answer(client, model, part)]


def _classified(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    reader = model.manifest.reader
    tensors, counts = {}, [{} for _ in rows]
    if isinstance(reader, ImageReader):
        tensors["images"] = np.stack([read_image(row, reader, "") for row in rows])
    elif isinstance(reader, TextReader):
        assert model.tokenizer is not None
        ids = [model.tokenizer.encode(text).ids for text in rows]
        counts = [{"tokens": len(row)} for row in ids]
        tensors["ids"], tensors["lengths"] = pad_rows(ids, np.int64)
    else:
        assert isinstance(reader, SeriesReader)
        tensors["series"], tensors["lengths"] = pad_rows(rows, np.float32, reader.channels)
    probabilities_BL = _infer(client, model, tensors, ["probabilities"])["probabilities"]
    return [{**_best(model, row_L), **count} for row_L, count in zip(probabilities_BL, counts, strict=True)]


def _stateful_row(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    reader = model.manifest.reader
    assert isinstance(reader, SeriesReader)
    assert reader.state is not None
    series_BTC, lengths_B = pad_rows(rows, np.float32, reader.channels)
    zero = np.zeros((len(rows), reader.state.layers, reader.state.hidden), np.float32)
    tensors = {"series": series_BTC, "lengths": lengths_B, "h": zero, "c": zero}
    outputs = _infer(client, model, tensors, ["probabilities", "next_h", "next_c"])
    found = []
    for i, length in enumerate(lengths_B):
        steps = [_best(model, row_L) for row_L in outputs["probabilities"][i, :length]]
        state = pack_state(model.manifest, outputs["next_h"][i], outputs["next_c"][i])
        found.append({**steps[-1], "steps": steps, "state": state})
    return found


def _best(model: Model, probabilities_L: Array) -> Answer:
    place = int(probabilities_L.argmax())
    return {
        "label": model.manifest.labels[place],
        "probability": float(probabilities_L[place]),
    }


def _images(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    size = int(model.manifest.inputs[0].shape[1])
    seeded = np.concatenate([sample_latents(seed, 1, size) for seed in rows])
    return [{"pixels": image} for image in _infer(client, model, {"latents": seeded}, ["images"])["images"].tolist()]


def _generated(client: httpx.Client, model: Model, rows: Sequence[Any]) -> list[Answer]:
    """Decode greedily over caches that the client keeps: each prompt alone, then one token of every row at a time."""
    head = model.manifest.head
    assert isinstance(head, LanguageModelHead)
    assert model.tokenizer is not None
    assert model.manifest.limits.max_steps is not None
    prompts = [model.tokenizer.encode(text).ids for text in rows]
    [capacity] = {cache_capacity(len(ids) + MAX_TOKENS, model.manifest.limits.max_steps) for ids in prompts}
    parts = [f"{kind}_{layer}" for layer in range(head.layers) for kind in ("key", "value")]
    shape = (len(rows), head.heads, capacity, head.head_size)
    caches = {part: np.zeros(shape, np.float32) for part in parts}
    lengths = np.zeros(len(rows), np.int64)
    generated: list[list[int]] = [[] for _ in rows]
    logprobs: list[list[Answer]] = [[] for _ in rows]

    def step(first: int, end: int, ids: list[list[int]]) -> None:
        tensors = {"ids": np.array(ids), "past_lengths": lengths[first:end]}
        past = {f"past_{part}": cache[first:end] for part, cache in caches.items()}
        outputs = _infer(client, model, {**tensors, **past}, ["logits", *(f"new_{part}" for part in parts)])
        for i in range(first, end):
            begin, count = lengths[i], len(ids[0])
            for part, cache in caches.items():
                cache[i, :, begin : begin + count] = outputs[f"new_{part}"][i - first]
            logits_V = outputs["logits"][i - first, -1]
            generated[i].append(int(logits_V.argmax()))
            token = model.tokenizer.decode(generated[i][-1:])  # type: ignore[union-attr]
            logprobs[i].append({"token": token, "logprob": log_probability(logits_V, generated[i][-1])})
        lengths[first:end] += len(ids[0])

    for i, ids in enumerate(prompts):
        step(i, i + 1, [ids])
    for _ in range(MAX_TOKENS - 1):
        step(0, len(rows), [row[-1:] for row in generated])
    return [
        {"text": model.tokenizer.decode(ids), "tokens": len(ids), "logprobs": found}
        for ids, found in zip(generated, logprobs, strict=True)
    ]


def _post(client: httpx.Client, path: str, body: Answer) -> Answer:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: Answer = response.json()
    return answer


def _infer(
    client: httpx.Client, model: Model, tensors: Mapping[str, Array], outputs: Sequence[str]
) -> dict[str, Array]:
    """Send tensors as bytes; receive them as JSON numbers."""
    inputs = [
        {
            "name": name,
            "shape": tensor.shape,
            "datatype": DATATYPES[tensor.dtype.name],
            "parameters": {"binary_data_size": tensor.nbytes},
        }
        for name, tensor in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": name} for name in outputs]}).encode()
    response = client.post(
        f"/v2/models/{model.manifest.name}/infer",
        content=b"".join([head, *(np.ascontiguousarray(tensor).tobytes() for tensor in tensors.values())]),
        headers={"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 200, response.text
    kinds = {kind: name for name, kind in DATATYPES.items()}
    return {
        entry["name"]: np.array(entry["data"], kinds[entry["datatype"]]).reshape(entry["shape"])
        for entry in response.json()["outputs"]
    }
