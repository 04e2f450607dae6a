"""States round-trip exactly, and only to the model version that made them."""

import base64
from typing import Any

import numpy as np
import pytest

from service.contract.readers import SeriesReader
from service.errors import EkibenError
from service.manifest import GOLDEN, MODEL, REQUESTS, Manifest
from service.tasks.codecs.states import pack_state, unpack_state
from tests.service.bundles import manifest_fields

FILES = {name: {"sha256": "0" * 64, "bytes": 1} for name in (MODEL, GOLDEN, REQUESTS)}
MANIFEST = Manifest.versioned(**manifest_fields("series-tagger"), files=FILES)
OTHER = Manifest.versioned(**{**manifest_fields("series-tagger"), "summary": "another"}, files=FILES)
assert isinstance(MANIFEST.reader, SeriesReader)
STATE = MANIFEST.reader.state
assert STATE is not None
H, C = np.random.default_rng(0).normal(size=(2, STATE.layers, STATE.hidden)).astype(np.float32)


def test_state_round_trips_exactly() -> None:
    state = unpack_state(pack_state(MANIFEST, H, C), MANIFEST, STATE, "")
    assert np.array_equal(state, np.stack([H, C]))
    assert state.dtype == np.float32


def test_null_is_the_zero_state() -> None:
    assert not unpack_state(None, MANIFEST, STATE, "").any()


def shortened(text: str) -> str:
    return base64.urlsafe_b64encode(base64.urlsafe_b64decode(text)[:-4]).decode()


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (pack_state(OTHER, H, C), f"expected a state of version {MANIFEST.version}, got one of {OTHER.version}"),
        (shortened(pack_state(MANIFEST, H, C)), "expected a state of 24 bytes, got 20"),
        (
            pack_state(MANIFEST, np.full_like(H, np.nan), C),
            "expected a state with a number that is finite in float32 at h[0, 0], got NaN",
        ),
        (pack_state(MANIFEST, H, C * np.array([1, np.inf, 1], np.float32)), "at c[0, 1], got "),
        ("", "expected a state of 24 bytes, got 0"),
        ("%%%", "expected a `state` of an earlier answer, got '%%%'"),
        (7, "expected null or a `state` of an earlier answer, got 7"),
    ],
)
def test_invalid_state_is_refused(state: Any, detail: str) -> None:
    with pytest.raises(EkibenError) as caught:
        unpack_state(state, MANIFEST, STATE, "/states/1")
    assert caught.value.faults[0].pointer == "/states/1"
    assert detail in caught.value.faults[0].detail


def test_a_state_outside_the_domain_is_refused() -> None:
    ranges = {"h": {"low": -1.0, "high": 1.0}, "c": {"low": -9.0, "high": 9.0}}
    ranged = Manifest.versioned(**{**manifest_fields("series-tagger"), "domain": ranges}, files=FILES)
    h, c = np.float32([[0.5, -1.0, 1.0]]), np.float32([[-9.0, 9.0, 0.0]])
    assert np.array_equal(unpack_state(pack_state(ranged, h, c), ranged, STATE, ""), np.stack([h, c]))
    with pytest.raises(EkibenError, match=r"a number of -1.0 to 1.0 at h\[0, 0\], got 4.5; restart with null"):
        unpack_state(pack_state(ranged, h * 9, c), ranged, STATE, "/states/1")
    with pytest.raises(EkibenError, match=r"a number of -9.0 to 9.0 at c\[0, 0\], got -18.0"):
        unpack_state(pack_state(ranged, h, c * 2), ranged, STATE, "/states/1")
