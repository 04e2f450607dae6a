"""Encoders of `transformers` as graphs of ids and lengths: classifiers of texts and of tokens, and embeddings.

The mask is computed from the lengths. Whatever the ids of padding are, the model gets its own padding id there, so
that its position ids and its choice of the last token are those of a batch that its tokenizer padded on the right.

Shapes: B batch, T steps, D size of a hidden state.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from export.sources.huggingface.pooling import Pooling
from export.sources.huggingface.precision import in_precision_of


class TextEncoder(nn.Module):
    """The model behind a mask that follows from the lengths."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        padding_id: int | None = getattr(model.config, "pad_token_id", None)
        self.padding_id = 0 if padding_id is None else padding_id

    def encode(self, ids_BT: Tensor, lengths_B: Tensor) -> tuple[Any, Tensor]:
        """The outputs of the model, and the mask of the steps that are no padding."""
        mask_BT = torch.arange(ids_BT.shape[1], device=ids_BT.device) < lengths_B[:, None]
        ids_BT = torch.where(mask_BT, ids_BT, self.padding_id)
        with in_precision_of(self.model):
            return self.model(input_ids=ids_BT, attention_mask=mask_BT.to(torch.int64)), mask_BT


class LabelClassifier(TextEncoder):
    """(ids, lengths) -> (logits, probabilities) of one label for each text, or for each of its tokens."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _ = self.encode(*inputs)
        return outputs.logits, outputs.logits.softmax(-1)


class MultilabelClassifier(TextEncoder):
    """(ids, lengths) -> (logits, probabilities) of labels that do not exclude each other."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        outputs, _ = self.encode(*inputs)
        return outputs.logits, outputs.logits.sigmoid()


class Regressor(TextEncoder):
    """(ids, lengths) -> values."""

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        outputs, _ = self.encode(*inputs)
        return (outputs.logits,)


class Embedder(TextEncoder):
    """(ids, lengths) -> embedding, pooled from the hidden states of the tokens."""

    def __init__(self, model: PreTrainedModel, pooling: Pooling) -> None:
        super().__init__(model)
        if isinstance(getattr(model, "pooler", None), nn.Module):
            # A layer behind the hidden states, which an embedding does not read.
            model.pooler = None
        self.pooling = pooling

    def forward(self, *inputs: Tensor) -> tuple[Tensor]:
        outputs, mask_BT = self.encode(*inputs)
        hidden_BTD: Tensor = outputs.last_hidden_state
        mask_BT1 = mask_BT[:, :, None]
        if self.pooling.mode == "cls":
            embedding_BD = hidden_BTD[:, 0]
        elif self.pooling.mode == "max":
            embedding_BD = hidden_BTD.masked_fill(~mask_BT1, torch.finfo(hidden_BTD.dtype).min).amax(1)
        else:
            embedding_BD = (hidden_BTD * mask_BT1).sum(1) / mask_BT1.sum(1)
        return (nn.functional.normalize(embedding_BD, dim=-1) if self.pooling.normalized else embedding_BD,)
