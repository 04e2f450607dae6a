"""python -m training NAME: train one recipe into a run folder."""

import argparse
import difflib
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
from training.models import RECIPES
from training.recipe import Recipe
from training.run.loop import Loop, Plan
from training.run.progress import Display
from training.run.report import write_report
from training.workers import Workers, join_workers

INTERRUPTED = 130
ParserClass = type[argparse.ArgumentParser]


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM arrived; a repeat of the same signal ends the process."""
    received = False

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.signal(number, signal.SIG_DFL)

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def parser(parser_class: ParserClass = argparse.ArgumentParser) -> argparse.ArgumentParser:
    arguments = parser_class(prog="python -m training", description="Train one recipe into a run folder.")
    arguments.add_argument("name", nargs="?", metavar="NAME", help="name of a recipe; --list shows all")
    arguments.add_argument("--list", action="store_true", help="list the recipes and exit")
    arguments.add_argument("--data", metavar="PATH|URL", help="the real data set (default: the embedded one)")
    length = arguments.add_mutually_exclusive_group()
    length.add_argument("--steps", type=_positive(int), help="number of training steps (default: the recipe's)")
    length.add_argument("--minutes", type=_positive(float), help="training time, instead of a number of steps")
    arguments.add_argument("--seed", type=int, help="same seed on the same machine gives same weights (default: 0)")
    arguments.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), help="where it trains (default: auto, a GPU if there is one)"
    )
    arguments.add_argument("--threads", type=_positive(int), help="number of CPU threads (default: PyTorch's choice)")
    arguments.add_argument("--out", type=Path, metavar="FOLDER", help="the run folder (default: runs/NAME)")
    arguments.add_argument("--resume", action="store_true", help="resume the run in the folder with its saved plan")
    return arguments


def main(
    argv: Sequence[str] | None = None,
    recipes: Mapping[str, Recipe] = RECIPES,
    parser_class: ParserClass = argparse.ArgumentParser,
) -> int:
    """Return the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    arguments = parser(parser_class)
    options = arguments.parse_args(argv)
    if options.list:
        _print_recipes(recipes)
        return 0
    if options.name is None:
        arguments.error("a recipe name is required; --list shows all")
    if options.name not in recipes:
        similar = difflib.get_close_matches(options.name, recipes, n=1)
        hint = f"; did you mean {similar[0]}?" if similar else ""
        arguments.error(f"unknown recipe {options.name!r}; known are {', '.join(recipes)}{hint}")
    recipe = recipes[options.name]
    folder: Path = options.out or Path("runs") / recipe.name
    try:
        if options.resume and (folder / CHECKPOINT).exists():
            checkpoint = read_checkpoint(folder)
            metrics = _format_metrics(checkpoint.metrics, data=checkpoint.data["name"])
            print(f"{recipe.name}: the run in {folder} is already finished: {metrics}")
            return 0
        saved_plan = read_snapshot(folder)[1]["plan"] if options.resume else {}
        with join_workers(options.device or saved_plan.get("device", "auto")) as workers:
            return _train(recipe, folder, options, saved_plan, workers)
    except (ValueError, OSError) as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1


def _train(
    recipe: Recipe, folder: Path, options: argparse.Namespace, saved_plan: Mapping[str, Any], workers: Workers
) -> int:
    """Train; options that are not given come from `saved_plan`, the plan of the resumed run ({} for a new run)."""
    threads = options.threads or saved_plan.get("threads") or _default_threads(workers)
    torch.set_num_threads(threads)
    # cuBLAS needs a fixed workspace, or matrix products on a GPU are not deterministic.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    source = options.data or saved_plan.get("data")
    data = recipe.load(None if source is None else fetch(source))
    plan = Plan(
        recipe=recipe.name,
        data=source,
        sha256=data.sha256,
        **_length(recipe, options, saved_plan),
        seed=saved_plan.get("seed", 0) if options.seed is None else options.seed,
        device=workers.device.type,
        threads=threads,
        workers=workers.count,
    )
    loop = Loop(recipe=recipe, data=data, plan=plan, folder=folder, workers=workers)
    if options.resume:
        loop.resume()
    elif workers.is_main:
        start_run(folder)
    start = loop.fraction_done()
    with stop_signals() as stop_requested, Display(recipe.name, start=start, visible=workers.is_main) as display:
        finished = loop.run(display, stop_requested)
    if not finished and workers.is_main:
        step = loop.progress.step
        print(f"{recipe.name}: stopped at step {step:,}. Resume with: {_resume_command(recipe, options)}")
    elif workers.is_main:
        metrics = _format_metrics(write_report(loop), data=data.name)
        print(f"{recipe.name}: {metrics}, in {loop.progress.seconds:.0f} s -> {folder}")
    return 0 if finished else INTERRUPTED


def _length(recipe: Recipe, options: argparse.Namespace, saved_plan: Mapping[str, Any]) -> dict[str, Any]:
    """The steps or minutes of the options, else of the saved plan, else the recipe's steps."""
    if options.steps or options.minutes:
        return {"steps": options.steps, "minutes": options.minutes}
    if saved_plan:
        return {"steps": saved_plan["steps"], "minutes": saved_plan["minutes"]}
    return {"steps": recipe.steps if options.data is None else recipe.steps_real, "minutes": None}


def _default_threads(workers: Workers) -> int:
    return max(1, torch.get_num_threads() // workers.count)


def _resume_command(recipe: Recipe, options: argparse.Namespace) -> str:
    out = "" if options.out is None else f" --out {options.out}"
    return f"python -m training {recipe.name}{out} --resume"


def _format_metrics(metrics: Mapping[str, float], *, data: str) -> str:
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    return f"{values} on {data}"


def _print_recipes(recipes: Mapping[str, Recipe]) -> None:
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
