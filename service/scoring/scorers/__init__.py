"""The registry of scorers, by family of model."""

from collections.abc import Callable, Mapping
from typing import Any

from service.engine.sessions.model import Model
from service.scoring.scorers.generate import GenerateScorer
from service.scoring.scorers.images import ImageScorer
from service.scoring.scorers.scorer import Scorer
from service.scoring.scorers.sequences import SeriesScorer, TextScorer

SCORERS: Mapping[str, Callable[[Model, Mapping[str, str], Mapping[str, Any]], Scorer]] = {
    "image-classifier": ImageScorer,
    "text-classifier": TextScorer,
    "series-classifier": SeriesScorer,
    "series-tagger": SeriesScorer,
    "language-model": GenerateScorer,
    "image-generator": GenerateScorer,
}
