"""Bodies hold what was given: arrays exactly, pictures in every form."""

import base64
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ekiben.client.payload import json_body, picture

PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def test_arrays_and_numbers_are_exact() -> None:
    values = np.array([0.1, 1 / 3, 3.4e38], np.float32)
    read = json.loads(json_body({"a": values, "b": np.int64(2**62), "c": [values[0]], "d": np.bool_(True)}))
    assert np.array_equal(np.array(read["a"], np.float32), values)
    assert (read["b"], read["c"], read["d"]) == (2**62, [float(values[0])], True)


@pytest.mark.parametrize("value", [float("nan"), np.array([np.inf]), {1, 2}, object()])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        json_body({"a": value})


def test_pictures_of_every_form(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.fromarray(PIXELS).save(buffer, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(buffer.getvalue())
    for item in (buffer.getvalue(), bytearray(buffer.getvalue()), path, Image.fromarray(PIXELS)):
        content = base64.b64decode(picture(item))
        assert np.array_equal(np.asarray(Image.open(BytesIO(content))), PIXELS)
    for item in ("aGVsbG8=", PIXELS.tolist(), PIXELS):
        assert picture(item) is item
