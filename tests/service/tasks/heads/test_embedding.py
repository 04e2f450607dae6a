"""An embedding is the vector that the model computes."""

import numpy as np

from service.engine.sessions.model import Model
from service.tasks.heads.embedding import answers
from service.tasks.readers.payload import Group


def test_an_embedding_is_not_rounded(pair_models: dict[str, Model]) -> None:
    vectors = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    rows = answers(pair_models["tiny-vectors"].manifest, {"embedding": vectors}, Group({}, range(3)), {})
    assert np.array_equal(np.array([row["embedding"] for row in rows], np.float32), vectors)
