"""The parser of the commands: names, examples, and hints."""

import re
import shlex
from argparse import ArgumentParser

import pytest

from ekiben.bench.__main__ import command_parser as bench_parser
from ekiben.cli.commands import COMMANDS
from ekiben.cli.inspection import command_parser as bundle_parser
from ekiben.cli.overview import OVERVIEW
from ekiben.cli.parser import EXAMPLES, PROGRAMS, CommandParser
from export.__main__ import inspect_parser, runs_parser
from export.sources.registry import WAYS, source_parser
from service.__main__ import command_parser as serve_parser
from service.scoring.command.parser import command_parser as score_parser
from service.scoring.watch.status import command_parser as status_parser
from tests.documents import BLOCK, PAGES
from training.__main__ import parser as train_parser

STAGES = {
    "ekiben train": train_parser,
    "ekiben export": runs_parser,
    "ekiben export inspect": inspect_parser,
    "ekiben serve": serve_parser,
    "ekiben score": score_parser,
    "ekiben bench": bench_parser,
    "ekiben score status": status_parser,
    "ekiben inspect": bundle_parser,
    **{f"ekiben export {name}": lambda kind, name=name: source_parser(name, kind) for name in WAYS},
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_calls_itself_by_the_command(name: str) -> None:
    parser = STAGES[name](CommandParser)
    assert parser.prog == name
    for example in EXAMPLES.get(name, []):
        assert f"  {example}\n" in parser.format_help()


def test_every_command_has_examples() -> None:
    assert set(EXAMPLES) == {f"ekiben {name}" for name in COMMANDS}
    assert set(PROGRAMS.values()) <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_valid_commands(name: str) -> None:
    for example in EXAMPLES[name]:
        parse(example)


def parse(line: str) -> None:
    """Parse a command line as the command would; settings may stand before it."""
    words = shlex.split(line[line.index("ekiben ") :], comments=True)
    stage = next(name for name in (" ".join(words[:3]), " ".join(words[:2])) if name in STAGES)
    assert STAGES[stage](CommandParser).parse_args(words[len(stage.split()) :])


def test_documented_commands_are_valid() -> None:
    blocks = (code for page in PAGES for language, _, code in BLOCK.findall(page.read_text()) if language == "sh")
    commands = [line for code in blocks for line in code.splitlines() if re.match(r"(\S*python -m )?ekiben ", line)]
    commands += [line for line in OVERVIEW.splitlines() if line.startswith("  ekiben ")]
    assert len(commands) > 10
    for command in commands:
        if " completion " not in command and " bench " not in command:
            parse(command)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--modle", "a"], "unknown option --modle; did you mean --model?"),
        (["--sahrd-rows=7"], "unknown option --sahrd-rows; did you mean --shard-rows?"),
        (["--qqqq"], "unknown option --qqqq\n"),
        (["--model", "a", "--input", "b", "--output", "c", "--device", "cudda"], "; did you mean cuda?"),
        (["--model", "a"], "the following arguments are required: --input, --output\n"),
    ],
)
def test_misspelt_options_have_a_hint(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        score_parser(CommandParser).parse_args(words)
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.endswith("\nSee ekiben score --help.\n")


def test_valid_words_are_parsed_as_without_the_hints() -> None:
    words = ["--mod", "a", "--input", "-", "--output=--odd", "--where", "--x > 1 and y"]
    assert vars(score_parser(CommandParser).parse_args(words)) == vars(score_parser(ArgumentParser).parse_args(words))
