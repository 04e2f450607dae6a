"""Folders as save_pretrained writes them, of tiny models that are built from configurations and a seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel, PreTrainedTokenizerFast

TREES = ["ash", "birch", "cedar", "elm", "fir", "gum", "hazel", "ivy", "larch", "maple", "oak", "pine", "rowan", "sorb"]
WORDS = [*TREES, "teak", "yew", "##s", "##wood", "!", "?", "."]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CHARACTERS = ["<s>", "</s>", *"\n abcdefghijklmnopqrstuvwxyz."]
POSITIONS, CONTEXT = 24, 48
LABELS = {0: "ant", 1: "bee", 2: "cat", 3: "dog"}
SIZES: dict[str, Any] = {
    "vocab_size": len(SPECIAL) + len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
}


def wordpiece(*, truncation: int | None = None, padding: int | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer of BERT's kind; with settings of truncation and padding as training scripts leave them inside."""
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if truncation is not None:
        tokenizer.enable_truncation(truncation)
    if padding is not None:
        tokenizer.enable_padding(length=padding, pad_id=0, pad_token="[PAD]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )


def characters(*, has_bos: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of characters, whose texts begin with <s> if `has_bos`."""
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(CHARACTERS)}, unk_token=" "))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    if has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token=" ")


def bert(kind: str, **settings: Any) -> PreTrainedModel:
    """A BERT for a task, such as "BertForSequenceClassification"."""
    config = transformers.BertConfig(**{**SIZES, "pad_token_id": 0, "id2label": LABELS, **settings})
    return randomize(getattr(transformers, kind)(config))


def gpt2(**settings: Any) -> PreTrainedModel:
    """A GPT-2 whose output layer is its embedding."""
    config = transformers.GPT2Config(
        vocab_size=len(CHARACTERS), n_positions=CONTEXT, n_embd=16, n_layer=2, n_head=2, bos_token_id=0,
        eos_token_id=1, **settings,
    )  # fmt: skip
    return randomize(transformers.GPT2LMHeadModel(config))


def llama(**settings: Any) -> PreTrainedModel:
    """A Llama with two heads of keys and values for four of queries."""
    config = transformers.LlamaConfig(
        vocab_size=len(CHARACTERS), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, bos_token_id=0, eos_token_id=1, **settings,
    )  # fmt: skip
    return randomize(transformers.LlamaForCausalLM(config))


def vit(channels: int = 3) -> PreTrainedModel:
    """A ViT for pictures of 16x16."""
    config = transformers.ViTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=16, patch_size=4,
        num_channels=channels, id2label=LABELS,
    )  # fmt: skip
    return randomize(transformers.ViTForImageClassification(config))


def randomize(model: PreTrainedModel, *, seed: int = 0) -> PreTrainedModel:
    """Change all weights, so that none is 0 or 1 and no answer is uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def save(folder: Path, model: PreTrainedModel, *others: Any) -> Path:
    """Write the model with its tokenizer or image processor, and return the folder."""
    for part in (model, *others):
        part.save_pretrained(folder)
    return folder


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def pictures(count: int, *, size: tuple[int, int] = (40, 52)) -> np.ndarray:
    """Pictures of noise, uint8 [count, height, width, 3]."""
    return np.random.default_rng(3).integers(0, 256, (count, *size, 3), np.uint8)
