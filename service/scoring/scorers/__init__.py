"""The registry of scorers, by pair of reader and head."""

from collections.abc import Mapping

from service.scoring.scorers.generate import GenerateScorer
from service.scoring.scorers.images import ImageScorer
from service.scoring.scorers.scorer import Scorer
from service.scoring.scorers.sequences import SeriesScorer, TextScorer

SCORERS: Mapping[str, type[Scorer]] = {
    "image -> labels": ImageScorer,
    "text -> labels": TextScorer,
    "series -> labels": SeriesScorer,
    "series -> token-labels": SeriesScorer,
    "text -> language-model": GenerateScorer,
    "tensors -> image": GenerateScorer,
}
