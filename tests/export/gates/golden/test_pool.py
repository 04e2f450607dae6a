"""The pool has every length, every word, structured items, and only values of the domain."""

from dataclasses import replace

import numpy as np

from export.candidate import Candidate
from export.gates.golden.pool import draw_pool, num_rows, row_bytes
from service.manifest import ValueRange
from tests.export.conftest import Candidates
from tests.export.tiny import WORDS


def test_other_seeds_draw_other_items(candidate: Candidate) -> None:
    first, same, other = (draw_pool(candidate, seed=seed) for seed in (1, 1, 2))
    name = candidate.manifest.inputs[0].name
    contents = [np.concatenate([batch[name].ravel() for batch in pool.optional]) for pool in (first, same, other)]
    np.testing.assert_array_equal(contents[0], contents[1])
    assert not np.array_equal(contents[0], contents[2])


def test_every_length_that_the_service_may_pad_to_is_mandatory(candidates: Candidates) -> None:
    pool = draw_pool(candidates("tiny-lstm"), seed=0)
    widths = {batch["series"].shape[1] for batch in pool.mandatory}
    assert {8, 11} <= widths
    ragged = pool.mandatory[0]
    assert ragged["series"].shape[:2] == (3, 7)
    assert len(set(ragged["lengths"].tolist())) > 1
    assert max(num_rows(batch) for batch in pool.mandatory if batch["series"].shape[1] == 11) == 2


def test_every_word_is_read_alone(candidates: Candidates) -> None:
    pool = draw_pool(candidates("tiny-text"), seed=0)
    words = {int(ids) for batch in pool.mandatory if batch["ids"].shape[1] == 1 for ids in batch["ids"].ravel()}
    assert words == set(range(len(WORDS)))
    assert all(set(batch) == {"ids", "lengths"} for batch in pool.mandatory)


def test_pictures_are_inverted_black_and_white_sparse_and_blank(candidates: Candidates) -> None:
    pool = draw_pool(candidates("tiny-picture"), seed=0)
    pictures = np.concatenate([batch["images"] for batch in pool.optional]).reshape(-1, 64)
    assert (pictures == 0).all(1).any()
    assert np.isin(pictures, (0, 255)).all(1).sum() >= 16
    assert ((pictures == 0).mean(1) > 0.8).sum() >= 16


def test_each_latent_is_the_largest_of_some_row(candidates: Candidates) -> None:
    pool = draw_pool(candidates("tiny-gan"), seed=0)
    latents = np.concatenate([batch["latents"] for batch in pool.optional])
    assert set(latents[: 4 * latents.shape[1]].argmax(1).tolist()) == set(range(latents.shape[1]))


def test_values_stay_in_the_domain(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    manifest = candidate.manifest.model_copy(update={"domain": {"series": ValueRange(low=-1.0, high=2.0)}})
    pool = draw_pool(replace(candidate, manifest=manifest), seed=0)
    values = np.concatenate([batch["series"].ravel() for batch in (*pool.mandatory, *pool.optional)])
    assert (values.min(), values.max()) == (-1, 2)


def test_row_bytes_is_the_size_of_one_row() -> None:
    assert row_bytes({"ids": np.zeros((3, 5), np.int64), "lengths": np.zeros(3, np.int64)}) == 48


def test_series_are_also_faint_and_large(candidates: Candidates) -> None:
    pool = draw_pool(candidates("tiny-rnn"), seed=0)
    scales = [float(np.abs(batch["series"]).mean()) for batch in pool.optional]
    assert max(scales) > 2 * np.median(scales)
    assert min(scales) < 0.2 * np.median(scales)
