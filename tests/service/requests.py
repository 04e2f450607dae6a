"""One valid request for each tiny model."""

from typing import Any

from tests.service.bundles import NAMES

SERIES = [[[0.1, 0.2], [0.3, 0.4]], [[1.0, -1.0]]]
REQUEST_FIELDS: dict[str, dict[str, Any]] = {
    "image-classifier": {"images": [[[7] * 4] * 4]},
    "series-classifier": {"sequences": SERIES},
    "series-tagger": {"sequences": SERIES},
    "text-classifier": {"texts": ["the train leaves", "rice"]},
    "language-model": {"prompt": "the tr", "seed": 3, "max_tokens": 6, "logprobs": True},
    "image-generator": {"count": 2, "seed": 1},
}


def request_body(family: str) -> dict[str, Any]:
    return {"model": NAMES[family], **REQUEST_FIELDS[family]}
