"""Export models of a realistic size for this benchmark: ResNet-18 at 224 x 224, and a BERT of four layers of 256.

    python -m benchmarks.peers.large_models --bundles FOLDER
    python -m benchmarks.peers --models resnet-18 bert-4x256 --bundles FOLDER --bodies binary --rows 1 \
        --connections 8 32 --peers ekiben triton fastapi limit-ort --workers 2

Both have random weights: what an answer costs depends on the graph alone. They come in as any model does, by
`python -m export`, through all gates.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from benchmarks.export.modules import write_files

ROOT = Path(__file__).parents[2]
VOCABULARY, MAX_STEPS, NUM_LABELS = 4096, 128, 8
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def save_bert(folder: Path) -> None:
    """A classifier of texts with the tokenizer of a vocabulary of words."""
    words = [*SPECIAL, *(f"w{i}" for i in range(VOCABULARY - len(SPECIAL)))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    labels = {i: f"label-{i}" for i in range(NUM_LABELS)}
    config = transformers.BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=MAX_STEPS,
        id2label=labels,
        label2id={label: i for i, label in labels.items()},
    )
    model = transformers.BertForSequenceClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


def export_words(name: str, folder: Path) -> list[str]:
    """Write the files of a model, and return the words behind `python -m export`."""
    if name == "resnet-18":
        return ["module", *write_files("resnet", folder), "--name", name]
    save_bert(folder)
    return ["hf", str(folder), "--task", "sequence-classification", "--name", name]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of resnet-18, bert-4x256")
    parser.add_argument("--bundles", type=Path, required=True)
    options = parser.parse_args()
    status = 0
    with tempfile.TemporaryDirectory(prefix="large-models-") as temporary:
        for name in options.names or ["resnet-18", "bert-4x256"]:
            words = export_words(name, Path(temporary) / name)
            command = [sys.executable, "-m", "export", *words, "--bundles", str(options.bundles.absolute())]
            status |= subprocess.run(command, cwd=ROOT, check=False).returncode
    return status


if __name__ == "__main__":
    raise SystemExit(main())
