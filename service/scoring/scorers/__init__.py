"""The registry of scorers, by family of model."""

from collections.abc import Mapping

from service.scoring.scorers.generate import GenerateScorer
from service.scoring.scorers.images import ImageScorer
from service.scoring.scorers.scorer import Scorer
from service.scoring.scorers.sequences import SeriesScorer, TextScorer

SCORERS: Mapping[str, type[Scorer]] = {
    "image-classifier": ImageScorer,
    "text-classifier": TextScorer,
    "series-classifier": SeriesScorer,
    "series-tagger": SeriesScorer,
    "language-model": GenerateScorer,
    "image-generator": GenerateScorer,
}
