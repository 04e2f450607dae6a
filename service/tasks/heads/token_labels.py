"""One label for each token of a text, with its place in the text, or for each step of a series.

Invariant: `start` and `end` count Unicode code points of the text as it was given. Special tokens that the tokenizer
adds have no place and are left out.
"""

from collections.abc import Sequence

import numpy as np

from service.contract.readers import SeriesReader
from service.engine.batching.collate import Array, Tensors
from service.manifest import Manifest
from service.tasks.body import JsonObject
from service.tasks.codecs.states import pack_state
from service.tasks.codecs.texts import TokenizedText
from service.tasks.heads.ranking import rank
from service.tasks.readers.payload import Fields, Group


def outputs(manifest: Manifest) -> list[str]:
    """Return the outputs that an answer needs."""
    return ["probabilities", "next_h", "next_c"] if _is_stateful(manifest) else ["probabilities"]


def options(manifest: Manifest) -> tuple[str, ...]:
    """The most probable labels of a series are those after its last step; those of a token are not ranked."""
    return () if manifest.reader.kind == "text" else ("top_k",)


def answers(manifest: Manifest, outputs: Tensors, group: Group, fields: Fields) -> list[JsonObject]:
    """Return a `TokensPrediction` for each text, or a `SeriesPrediction` for each series."""
    probabilities_BTL = outputs["probabilities"]
    if group.texts:
        rows = zip(group.texts, probabilities_BTL, strict=True)
        return [{"tokens": label_tokens(text, row_TL, manifest.labels)} for text, row_TL in rows]
    lengths_B = group.inputs["lengths"]
    last_BL = probabilities_BTL[np.arange(len(lengths_B)), lengths_B - 1]
    predictions: list[JsonObject] = [{**top[0], "top": top} for top in rank(last_BL, manifest.labels, fields["top_k"])]
    for i, length in enumerate(lengths_B.tolist()):
        steps = rank(probabilities_BTL[i, :length], manifest.labels, 1)
        predictions[i]["steps"] = [ranked for [ranked] in steps]
        if _is_stateful(manifest):
            predictions[i]["state"] = pack_state(manifest, outputs["next_h"][i], outputs["next_c"][i])
    return predictions


def label_tokens(text: TokenizedText, probabilities_TL: Array, labels: Sequence[str]) -> list[JsonObject]:
    """Return a `TokenLabel` for each token of the text itself."""
    encoding, best_T = text.encoding, probabilities_TL.argmax(axis=1).tolist()
    offsets, is_special = encoding.offsets, encoding.special_tokens_mask
    tokens = []
    for step, place in enumerate(text.places):
        if is_special[place]:
            continue
        (start, end), best = offsets[place], best_T[step]
        probability = probabilities_TL[step, best].item()
        tokens.append(
            {
                "text": text.text[start:end],
                "start": start,
                "end": end,
                "label": labels[best],
                "probability": probability,
            }
        )
    return tokens


def _is_stateful(manifest: Manifest) -> bool:
    reader = manifest.reader
    return isinstance(reader, SeriesReader) and reader.state is not None
