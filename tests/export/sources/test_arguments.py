"""The flag list of each way in."""

from argparse import ArgumentParser

import pytest

from export.sources.arguments import add_inspect_arguments
from export.sources.registry import WAYS

COMMON = {"--name", "--bundles", "--precision"}
FLAGS = {
    "module": {"--weights", "--examples", "--spec"} | COMMON,
    "onnx": {"--golden", "--spec"} | COMMON,
    "hf": {"--task", "--examples", "--max-steps"} | COMMON,
    "keras": {"--examples", "--spec"} | COMMON,
}


@pytest.mark.parametrize("command", WAYS)
def test_flags(command: str) -> None:
    parser = ArgumentParser(add_help=False)
    WAYS[command].add_arguments(parser)
    flags = {flag for action in parser._actions for flag in action.option_strings}
    assert flags == FLAGS[command]


def test_inspect_has_one() -> None:
    parser = ArgumentParser(add_help=False)
    add_inspect_arguments(parser)
    assert parser.parse_args(["f", "--output", "spec.toml"]).output.name == "spec.toml"
