"""States round-trip exactly, and only to the model version that made them."""

import base64
from typing import Any

import numpy as np
import pytest

from service.errors import EkibenError
from service.families import SeriesTagger
from service.manifest import GOLDEN, MODEL, REQUESTS, Manifest
from service.tasks.codecs.states import pack_state, unpack_state
from tests.service.bundles import manifest_fields

FILES = {name: {"sha256": "0" * 64, "bytes": 1} for name in (MODEL, GOLDEN, REQUESTS)}
MANIFEST = Manifest.versioned(**manifest_fields("series-tagger"), files=FILES)
OTHER = Manifest.versioned(**{**manifest_fields("series-tagger"), "summary": "another"}, files=FILES)
assert isinstance(MANIFEST.parameters, SeriesTagger)
PARAMETERS = MANIFEST.parameters
H, C = np.random.default_rng(0).normal(size=(2, PARAMETERS.layers, PARAMETERS.hidden)).astype(np.float32)


def test_state_round_trips_exactly() -> None:
    state = unpack_state(pack_state(MANIFEST, H, C), MANIFEST, PARAMETERS, "")
    assert np.array_equal(state, np.stack([H, C]))


def test_null_is_the_zero_state() -> None:
    assert not unpack_state(None, MANIFEST, PARAMETERS, "").any()


def shortened(text: str) -> str:
    return base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)[:-4]).decode()


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (pack_state(OTHER, H, C), f"expected a state of version {MANIFEST.version}, got one of {OTHER.version}"),
        (shortened(pack_state(MANIFEST, H, C)), "expected a state of 24 bytes, got 20"),
        (pack_state(MANIFEST, np.full_like(H, np.nan), C), "expected a state of finite numbers"),
        ("", "expected a state of 24 bytes, got 0"),
        ("%%%", "expected a `state` of an earlier answer, got '%%%'"),
        (7, "expected null or a `state` of an earlier answer, got 7"),
    ],
)
def test_invalid_state_is_refused(state: Any, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        unpack_state(state, MANIFEST, PARAMETERS, "/states/1")
    assert caught.value.faults[0].pointer == "/states/1"
    assert detail in caught.value.faults[0].detail
