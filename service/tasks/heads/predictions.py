"""What each head answers for one item, as the API documents it. The JSON omits fields that are None."""

from typing import Any

from pydantic import Field

from service.tasks.body import AnswerBody
from service.tasks.heads.ranking import Ranked

TOKENS = Field(default=None, description="text models: number of tokens in the text")


class LabelPrediction(Ranked):
    """The most probable labels; for a series whose steps have labels, those after its last step."""

    top: list[Ranked]
    tokens: int | None = TOKENS
    steps: list[Ranked] | None = Field(default=None, description="series with labels per step: the label of each step")
    state: str | None = Field(default=None, description="stateful models: send it with the next steps to continue")


class MultilabelPrediction(AnswerBody):
    """Every label whose probability reaches the threshold."""

    labels: list[Ranked] = Field(description="most probable first")
    tokens: int | None = TOKENS


class ValuesPrediction(AnswerBody):
    """Named numbers, in the units that GET /models/NAME lists."""

    values: dict[str, float]
    tokens: int | None = TOKENS


class EmbeddingPrediction(AnswerBody):
    """A vector."""

    embedding: list[float]
    tokens: int | None = TOKENS


class TokenLabel(Ranked):
    """A token and its label; `start` and `end` count Unicode code points of the text as it was given."""

    text: str
    start: int
    end: int


class TokensPrediction(AnswerBody):
    """One label for each token of a text."""

    tokens: list[TokenLabel]


class ImagePrediction(AnswerBody):
    """An image."""

    image: str = Field(description="base64 PNG")
    tokens: int | None = TOKENS


class TensorsPrediction(AnswerBody):
    """The outputs of the model, without the batch axis."""

    outputs: dict[str, Any] = Field(description="nested lists by the name of the output")
    tokens: int | None = TOKENS


Prediction = (
    LabelPrediction
    | MultilabelPrediction
    | ValuesPrediction
    | EmbeddingPrediction
    | TokensPrediction
    | ImagePrediction
    | TensorsPrediction
)
