"""python -m training.keras_models NAME: train a Keras model into a folder that `python -m export keras` reads."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from training.keras_models.fitting import train
from training.keras_models.models import KERAS_RECIPES


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 done, 1 failed, 2 wrong usage."""
    arguments = argparse.ArgumentParser(prog="python -m training.keras_models", description=__doc__)
    arguments.add_argument("name", choices=KERAS_RECIPES)
    arguments.add_argument("--data", type=Path, metavar="PATH", help="the real data set (default: the embedded one)")
    arguments.add_argument("--seed", type=int, default=0, help="default: 0")
    arguments.add_argument("--epochs", type=int, help="at most so many (default: the recipe's)")
    arguments.add_argument("--out", type=Path, metavar="FOLDER", help="default: runs/NAME")
    options = arguments.parse_args(argv)
    recipe = KERAS_RECIPES[options.name]
    folder = options.out or Path("runs") / recipe.name
    start = time.monotonic()
    try:
        data = recipe.load(options.data)
        metrics = train(recipe, data, folder, seed=options.seed, epochs=options.epochs)
    except (ValueError, OSError) as error:
        print(f"{recipe.name}: {error}", file=sys.stderr)
        return 1
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in metrics.items())
    print(f"{recipe.name}: {values} on {data.name}, in {time.monotonic() - start:.0f} s -> {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
