"""Series, states and latents of every magnitude stay within the domain and reach its ends."""

import numpy as np

from export.gates.coverage.domain import choose_domain
from export.gates.coverage.floats import latent_rows, series_rows
from service.manifest import ValueRange
from tests.export.conftest import Candidates

DOMAIN = ValueRange(low=-8, high=8)


def test_latents_are_ordinary_first_and_never_leave_the_domain() -> None:
    test = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    rows = list(latent_rows(test, DOMAIN))
    assert {row.inputs["latents"].shape for row in rows} == {(5,)}
    assert all(np.abs(row.inputs["latents"]).max() <= 8 for row in rows)
    assert [row.is_extreme for row in rows] == sorted(row.is_extreme for row in rows)
    names = {row.name for row in rows}
    assert {"all values 0.1", "all values -0.1", "all values 8", "all values -8"} <= names
    assert {name.split(")")[0] for name in names if name.startswith("a test item")} == {
        f"a test item ({number}" for number in range(12)
    }
    singles = [row.inputs["latents"] for row in rows if "alone" in row.name]
    assert len(singles) == 2 * 5
    assert (np.sum(np.abs(singles), axis=0) == 16).all()


def test_series_have_zero_denormal_and_tied_values(candidates: Candidates) -> None:
    candidate = candidates("tiny-lstm")
    rows = list(series_rows(candidate, choose_domain(candidate.source, candidate.manifest)))
    by_name = {row.name: row.inputs["series"] for row in rows}
    assert not by_name["all values 0, 11 steps"].any()
    assert (by_name["all values 1e-40, 11 steps"] == np.float32(1e-40)).all()
    constant = by_name["a test item (0), its first value throughout, 11 steps"]
    assert (constant == constant[:1]).all()
    high = choose_domain(candidate.source, candidate.manifest)["series"].high
    assert (by_name[f"step 3 alone at {high:g}"][3] == high).all()
    channel = by_name[f"channel 1 alone at {high:g}"]
    assert (channel[:, 1] == high).all()
    assert not channel[:, [0, 2]].any()
    assert all(set(row.inputs) == {"series", "lengths"} for row in rows)
    assert all(int(row.inputs["lengths"]) == len(row.inputs["series"]) for row in rows)


def test_series_of_a_tagger_have_states_and_every_unit_alone(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    rows = list(series_rows(candidate, choose_domain(candidate.source, candidate.manifest)))
    for part in ("h", "c"):
        singles = [row.inputs[part] for row in rows if row.name.startswith(f"state {part}")]
        assert len(singles) == 2 * singles[0].size
        assert (np.sum(np.abs(singles), axis=0) == 2 * np.abs(singles).max()).all()
        assert len({row.inputs[part].tobytes() for row in rows}) > 40
