"""A small model as somebody outside the project has it: a module, its weights, examples and a spec, in one folder."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from export.sources.registry import WAYS

CODE = """
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(20, hidden), nn.ReLU(), nn.Linear(hidden, 3))

    def forward(self, x):
        return self.layers(x)
"""
SPEC = """
reader = { kind = "image", height = 4, width = 5, mode = "L", mean = 0.5, std = 0.25 }
head = { kind = "labels", labels = ["ant", "bee", "cat"] }
"""


def write_own_model(folder: Path, *, module: str) -> list[str]:
    """Write the files and return the words behind `python -m export module`; `module` is the name of the code file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{module}.py").write_text(CODE)
    (folder / "spec.toml").write_text(SPEC)
    namespace: dict[str, Any] = {}
    exec(compile(CODE, module, "exec"), namespace)
    torch.manual_seed(0)
    net: nn.Module = namespace["Net"]()
    save_file(net.state_dict(), folder / "net.safetensors")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 4, 5), dtype=np.uint8)
    with torch.no_grad():
        targets = net((torch.from_numpy(images).unsqueeze(1) / 255 - 0.5) / 0.25).argmax(1).numpy()
    np.savez(folder / "examples.npz", x=images, y=targets)
    files = {"--weights": "net.safetensors", "--examples": "examples.npz", "--spec": "spec.toml"}
    return [f"{module}:Net", *(word for flag, file in files.items() for word in (flag, str(folder / file)))]


def options(words: list[str], command: str = "module") -> Namespace:
    """The words as the command line parses them."""
    parser = ArgumentParser()
    WAYS[command].add_arguments(parser)
    return parser.parse_args(words)
