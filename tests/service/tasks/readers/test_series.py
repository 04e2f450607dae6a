"""Series are padded to the longest of their request; a stateful model also reads states."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.engine.runner import Runner
from service.engine.sessions.model import Model
from service.errors import EkibenError
from service.tasks.codecs.states import pack_state
from service.tasks.readers.series import options, read

SEQUENCES = [[[0.5, 1.5]], [[1, 2], [3, 4], [5, 6]]]


def read_all(model: Model, runner: Runner, **fields: Any) -> Any:
    given = {"sequences": SEQUENCES, "states": None, **fields}
    return asyncio.run(read(model, runner, given, runner.new_context())).groups[0].inputs


def test_rows_are_padded_with_zeros(pair_models: dict[str, Model], runner: Runner) -> None:
    inputs = read_all(pair_models["tiny-forecast"], runner)
    assert set(inputs) == {"series", "lengths"}
    assert inputs["lengths"].tolist() == [1, 3]
    assert inputs["series"][0].tolist() == [[0.5, 1.5], [0, 0], [0, 0]]
    assert inputs["series"][1].tolist() == SEQUENCES[1]


def test_a_state_is_read_or_zero(models: dict[str, Model], runner: Runner) -> None:
    tagger = models["series-tagger"]
    h, c = np.full((2, 1, 3), [[[0.25]], [[0.5]]], np.float32)
    inputs = read_all(tagger, runner, states=[None, pack_state(tagger.manifest, h, c)])
    assert inputs["h"].tolist() == [[[0] * 3], [[0.25] * 3]]
    assert inputs["c"].tolist() == [[[0] * 3], [[0.5] * 3]]
    assert all(inputs[name].flags.c_contiguous for name in "hc")
    assert not read_all(tagger, runner)["h"].any()


def test_each_series_has_its_state(models: dict[str, Model], runner: Runner) -> None:
    with pytest.raises(EkibenError, match="/states: expected as many states as sequences"):
        read_all(models["series-tagger"], runner, states=[None])


def test_only_a_stateful_model_reads_states(models: dict[str, Model]) -> None:
    assert options(models["series-tagger"].manifest) == ("states",)
    assert options(models["series-classifier"].manifest) == ()
