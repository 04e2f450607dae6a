"""The options of each way in, in one place, so that the flags are the same words everywhere."""

from argparse import ArgumentParser
from pathlib import Path
from typing import get_args

from service.contract.precision import PrecisionName

TASKS = (
    "sequence-classification",
    "token-classification",
    "feature-extraction",
    "image-classification",
    "text-generation",
)


def add_module_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", help="what makes the module, as package.module:factory, or a .pt2 file"
    )
    parser.add_argument("--weights", type=Path, help="its state_dict as .safetensors; a .pt2 file has its own")
    _add_examples(parser, required=True)
    _add_spec(parser)
    _add_common(parser)


def add_onnx_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .onnx file")
    parser.add_argument(
        "--golden",
        type=Path,
        help="inputs and the outputs that are right for them, by the graph's names: .safetensors or .npz",
    )
    _add_spec(parser)
    _add_common(parser)


def add_hf_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="FOLDER", help="a folder written by save_pretrained")
    parser.add_argument("--task", choices=TASKS, required=True, help="what the model does")
    parser.add_argument(
        "--examples",
        type=Path,
        help='JSON lines of {"text": ...}, or a folder of pictures (default: export makes texts or pictures)',
    )
    parser.add_argument("--max-steps", type=int, help="the most tokens of a text (default: the folder's own limit)")
    _add_common(parser)


def add_keras_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL", help="a .keras file of Keras 3")
    _add_examples(parser, required=True)
    _add_spec(parser)
    _add_common(parser)


def add_inspect_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a model, its weights, its examples, or a transformers folder"
    )
    parser.add_argument("--output", type=Path, help="where the spec goes (default: standard output)")


def _add_examples(parser: ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--examples", type=Path, required=required, help="items, and targets if there are any: .safetensors or .npz"
    )


def _add_spec(parser: ArgumentParser) -> None:
    parser.add_argument("--spec", type=Path, help="what the model reads and answers: spec.toml")


def add_precision(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        choices=get_args(PrecisionName),
        help="write the variant NAME-PRECISION: tf32 or fp16 for GPUs, int8 or int4 for CPUs (default: float32)",
    )


def _add_common(parser: ArgumentParser) -> None:
    add_precision(parser)
    parser.add_argument("--name", help="the name of the bundle (default: of the spec, or of the file)")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"), help="where bundles go (default: bundles)")
