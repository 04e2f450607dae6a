"""The registry of scorers, by reader; a model that generates has one of its own."""

from collections.abc import Mapping

from service.manifest import Manifest
from service.scoring.job import Format
from service.scoring.scorers.generate import GenerateScorer
from service.scoring.scorers.images import ImageScorer
from service.scoring.scorers.openai import OpenAIScorer
from service.scoring.scorers.scorer import Scorer
from service.scoring.scorers.sequences import SeriesScorer, TextScorer
from service.scoring.scorers.table import TableScorer
from service.scoring.scorers.tensors import TensorsScorer

SCORERS: Mapping[str, type[Scorer]] = {
    "image": ImageScorer,
    "text": TextScorer,
    "series": SeriesScorer,
    "table": TableScorer,
    "tensors": TensorsScorer,
}


def scorer_type(manifest: Manifest, input_format: Format) -> type[Scorer]:
    """Return the scorer of a model for rows of this format."""
    if input_format == "openai":
        return OpenAIScorer
    return GenerateScorer if manifest.task == "generate" else SCORERS[manifest.reader.kind]
