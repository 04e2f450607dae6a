"""python -m training NAME: train one recipe into a run folder."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from training.checkpoint import CHECKPOINT, read_checkpoint, read_snapshot, start_run
from training.data.download import fetch
from training.loop import Loop, Plan
from training.models import RECIPES
from training.progress import Display
from training.recipe import Recipe
from training.report import report
from training.workers import Workers, gather_workers

INTERRUPTED = 130


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Whether SIGINT or SIGTERM asked to stop; asking twice ends the process at once."""
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m training", description="Train one recipe into a run folder.")
    arguments.add_argument("name", nargs="?", metavar="NAME", help="a recipe; --list shows them")
    arguments.add_argument("--list", action="store_true", help="show the recipes")
    arguments.add_argument("--data", metavar="PATH|URL", help="the real data set (default: the embedded one)")
    length = arguments.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_positive(int), help="how many batches to learn from (default: the recipe's)")
    length.add_argument("--minutes", type=_positive(float), help="how long to learn instead")
    arguments.add_argument("--seed", type=int, help="same seed, same machine: same weights (default: 0)")
    arguments.add_argument("--device", choices=("auto", "cpu", "cuda"), help="default: auto")
    arguments.add_argument("--threads", type=_positive(int), help="of the CPU (default: PyTorch's choice)")
    arguments.add_argument("--out", type=Path, metavar="FOLDER", help="the run folder (default: runs/NAME)")
    arguments.add_argument("--resume", action="store_true", help="go on with the run in the folder, under its plan")
    return arguments


def main(argv: Sequence[str] | None = None, recipes: Mapping[str, Recipe] = RECIPES) -> int:
    """Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = parser()
    options = arguments.parse_args(argv)
    if options.list:
        _list(recipes)
        return 0
    if options.name is None:
        arguments.error("which recipe? --list shows them")
    if options.name not in recipes:
        arguments.error(f"unknown recipe {options.name!r}; known are {', '.join(recipes)}")
    recipe = recipes[options.name]
    folder: Path = options.out or Path("runs") / recipe.name
    try:
        if options.resume and (folder / CHECKPOINT).exists():
            print(f"{recipe.name}: the run in {folder} is finished: {_facts(read_checkpoint(folder).metrics)}")
            return 0
        began = read_snapshot(folder)[1]["plan"] if options.resume else {}
        with gather_workers(options.device or began.get("device", "auto")) as workers:
            return _train(recipe, folder, options, began, workers)
    except (ValueError, OSError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1


def _train(
    recipe: Recipe, folder: Path, options: argparse.Namespace, began: Mapping[str, Any], workers: Workers
) -> int:
    """`began` is the plan of the run that is resumed: what the options leave open is as it was."""
    threads = options.threads or began.get("threads") or _threads(workers)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or matrix products on a GPU are not repeatable
    torch.use_deterministic_algorithms(True, warn_only=True)
    where = options.data or began.get("data")
    data = recipe.load(None if where is None else fetch(where))
    plan = Plan(
        recipe=recipe.name,
        data=where,
        sha256=data.sha256,
        **_length(recipe, options, began),
        seed=began.get("seed", 0) if options.seed is None else options.seed,
        device=workers.device.type,
        threads=threads,
        workers=workers.count,
    )
    loop = Loop(recipe=recipe, data=data, plan=plan, folder=folder, workers=workers)
    if options.resume:
        loop.resume()
    elif workers.first:
        start_run(folder)
    with stop_signals() as asked, Display(recipe.name, start=loop.fraction(), visible=workers.first) as display:
        finished = loop.run(display, asked)
    if not finished and workers.first:
        print(f"{recipe.name}: stopped at step {loop.progress.step:,}. Go on with: {_again(recipe, options)}")
    elif workers.first:
        metrics = report(loop)
        print(f"{recipe.name}: {_facts(metrics)}, in {loop.progress.seconds:.0f} s -> {folder}")
    return 0 if finished else INTERRUPTED


def _length(recipe: Recipe, options: argparse.Namespace, began: Mapping[str, Any]) -> dict[str, Any]:
    """Steps or minutes: those asked for, else those that the run began with, else the recipe's steps."""
    if options.steps or options.minutes:
        return {"steps": options.steps, "minutes": options.minutes}
    if began:
        return {"steps": began["steps"], "minutes": began["minutes"]}
    return {"steps": recipe.steps if options.data is None else recipe.steps_real, "minutes": None}


def _threads(workers: Workers) -> int:
    return max(1, torch.get_num_threads() // workers.count)


def _again(recipe: Recipe, options: argparse.Namespace) -> str:
    out = "" if options.out is None else f" --out {options.out}"
    return f"python -m training {recipe.name}{out} --resume"


def _facts(metrics: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())


def _list(recipes: Mapping[str, Recipe]) -> None:
    table = Table("recipe", "family", "what it does", "steps", "on real data", box=None, pad_edge=False)
    for recipe in recipes.values():
        table.add_row(recipe.name, recipe.family, recipe.summary, f"{recipe.steps:,}", f"{recipe.steps_real:,}")
    Console().print(table)


def _positive(kind: type[int] | type[float]) -> Callable[[str], float]:
    def positive(text: str) -> float:
        value = kind(text)
        if not value > 0:
            raise ValueError
        return value

    positive.__name__ = f"positive {kind.__name__}"
    return positive


if __name__ == "__main__":
    sys.exit(main())
