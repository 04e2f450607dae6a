"""A command line is a call of `score`, or a mistake that ends with 2."""

import inspect

import pytest

from service.scoring.command.parser import command_parser
from service.scoring.run import score

REQUIRED = ("--model", "m", "--input", "in", "--output", "out")


def test_the_options_are_the_parameters_of_score() -> None:
    names = set(vars(command_parser().parse_args(REQUIRED)))
    assert names - {"models", "json"} == set(inspect.signature(score).parameters) - {
        "model", "check", "display", "on_progress", "cancel",
    }  # fmt: skip


def test_values_are_those_of_python() -> None:
    options = command_parser().parse_args(
        [*REQUIRED, "--set", "top_k=3", "--set", "stop=.", "--column", "text=body", "--delimiter", "tab"]
    )
    assert (dict(options.request), dict(options.columns), options.delimiter) == (
        {"top_k": 3, "stop": "."}, {"text": "body"}, "\t",
    )  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [
        ("--column", "text"),
        ("--output-format", "xml"),
        ("--nonsense",),
        ("--workers", "many"),
        ("--set", "=3"),
        *(("--max-rejects", share) for share in ("-0.1", "1.1", "nan", "few")),
    ],
)
def test_a_wrong_command_exits_with_2(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as left:
        command_parser().parse_args([*REQUIRED, *arguments])
    assert left.value.code == 2
