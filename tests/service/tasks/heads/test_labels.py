"""The labels of a row are ranked by their probabilities."""

import numpy as np

from service.engine.sessions.model import Model
from service.tasks.heads.labels import answers
from service.tasks.readers.payload import Group


def test_the_most_probable_labels_are_ranked(pair_models: dict[str, Model]) -> None:
    probabilities = np.array([[0.25, 0.5, 0.125], [0.75, 0, 0.25]], np.float32)
    manifest = pair_models["tiny-customers"].manifest
    first, second = answers(manifest, {"probabilities": probabilities}, Group({}, range(2)), {"top_k": 2})
    leaves, stays = {"label": "leaves", "probability": 0.5}, {"label": "stays", "probability": 0.25}
    assert first == {**leaves, "top": [leaves, stays]}
    assert [ranked["label"] for ranked in second["top"]] == ["stays", "unsure"]
