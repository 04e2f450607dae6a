"""The ways in, beside the runs of this project: each subcommand of `python -m export` and the module that reads it.

Every module has `load(options) -> Loaded`, called in a process of its own with the options that
`export.sources.arguments` declares; it raises ValueError, one sentence with the file and the way out, for a model that
cannot come in. This file and the arguments import neither torch nor onnx.
"""

import importlib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from export.sources import arguments

if TYPE_CHECKING:
    from export.source import Source


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A source, and the bytes of its graph if it came as one; None if the module of the source is to be traced."""

    source: "Source"
    graph: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Way:
    """`add_arguments` declares the options of a subcommand, `module` names the module with `load`."""

    help: str
    add_arguments: Callable[[Any], None]
    module: str


WAYS: Mapping[str, Way] = {
    "module": Way(
        help="a torch.nn.Module with a file of weights, or a .pt2 file of torch.export",
        add_arguments=arguments.add_module_arguments,
        module="export.sources.module.source",
    ),
    "onnx": Way(
        help="an ONNX graph with golden inputs and outputs",
        add_arguments=arguments.add_onnx_arguments,
        module="export.sources.onnx_file.source",
    ),
    "hf": Way(
        help="a saved transformers model",
        add_arguments=arguments.add_hf_arguments,
        module="export.sources.huggingface.command",
    ),
    "keras": Way(
        help="a saved Keras 3 model",
        add_arguments=arguments.add_keras_arguments,
        module="export.sources.keras.source",
    ),
}


def source_parser(command: str, parser_class: type[ArgumentParser] = ArgumentParser) -> ArgumentParser:
    """The parser of a subcommand."""
    parser = parser_class(prog=f"python -m export {command}", description=f"Export {WAYS[command].help}.")
    WAYS[command].add_arguments(parser)
    return parser


def parse_source(
    words: Sequence[str], parser_class: type[ArgumentParser] = ArgumentParser
) -> tuple[list[str], str, Namespace]:
    """The words before a subcommand, the subcommand and its options; "" and no options without a subcommand."""
    place = next((place for place, word in enumerate(words) if word in WAYS), len(words))
    if place == len(words):
        return list(words), "", Namespace()
    command = words[place]
    parser = source_parser(command, parser_class)
    return list(words[:place]), command, parser.parse_args(list(words[place + 1 :]))


def load(command: str, options: Namespace) -> Loaded:
    """Read the model of a subcommand. Raises ValueError or OSError with one sentence."""
    return importlib.import_module(WAYS[command].module).load(options)
