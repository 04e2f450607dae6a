"""The parser of a stage's options as a command of `ekiben`: its name, its examples, and hints for misspelt options."""

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from ekiben.cli.suggestions import did_you_mean

# What the stages call themselves, the longest first, and the command of `ekiben` that runs them.
PROGRAMS = {
    "python -m service.scoring": "ekiben score",
    "python -m service": "ekiben serve",
    "python -m export": "ekiben export",
    "python -m training": "ekiben train",
    "python -m benchmarks.slo": "ekiben bench",
}
EXAMPLES = {
    "ekiben train": [
        "ekiben train --list",
        "ekiben train mnist-cnn",
        "ekiben train news-lstm --data ag_news --minutes 10",
    ],
    "ekiben export": [
        "ekiben export runs/mnist-cnn",
        "ekiben export onnx model.onnx --golden golden.npz --spec spec.toml",
        "ekiben export inspect model.onnx --output spec.toml",
    ],
    "ekiben serve": [
        "ekiben serve --bundles bundles",
        "EKIBEN_DEVICE=cuda ekiben serve --port 8000 --workers auto",
    ],
    "ekiben score": [
        "ekiben score --model news-lstm --input texts.csv --output scored",
        "ekiben score --model mnist-cnn --input 's3://bucket/digits/*.parquet' --output s3://bucket/scored",
        "ekiben score status scored",
    ],
    "ekiben bench": [
        "ekiben bench --url http://127.0.0.1:3000 --model mnist-cnn --p99-ms 20",
        "ekiben bench --url http://127.0.0.1:3000 --model mnist-cnn --scenario all --data test.safetensors",
    ],
    "ekiben inspect": [
        "ekiben inspect mnist-cnn",
        "ekiben inspect bundles/mnist-cnn/53c89b45c525",
        "ekiben inspect model.onnx",
    ],
}
CHOICES = re.compile(r"invalid choice: '(.*)' \(choose from (.*)\)")


class CommandParser(argparse.ArgumentParser):
    """A parser that calls itself by the command of `ekiben`."""

    def __init__(self, *, prog: str, **options: Any) -> None:
        stage = next((name for name in PROGRAMS if prog == name or prog.startswith(f"{name} ")), None)
        prog = prog if stage is None else PROGRAMS[stage] + prog.removeprefix(stage)
        if prog in EXAMPLES:
            examples = "\n  ".join(["examples:", *EXAMPLES[prog]])
            options["epilog"] = "\n\n".join(filter(None, [options.get("epilog"), examples]))
            options["formatter_class"] = argparse.RawDescriptionHelpFormatter
        super().__init__(prog=prog, **options)

    def parse_args(  # type: ignore[override]  # typeshed overloads it by the type of the namespace
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Name an unknown option first: argparse would name the required one that it was meant to be."""
        options = [option for action in self._actions for option in action.option_strings]
        for word in args or ():
            name = word.partition("=")[0]
            if word == "--":
                break
            if name.startswith("--") and " " not in name and not any(option.startswith(name) for option in options):
                self.error(f"unknown option {name}{did_you_mean(name, options)}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if match := CHOICES.search(message):
            word, choices = match.groups()
            message += did_you_mean(word, re.findall(r"'([^']*)'", choices))
        # The usage of `score` alone is 25 lines, which would hide the message.
        self.exit(2, f"{self.prog}: error: {message}\nSee {self.prog} --help.\n")
