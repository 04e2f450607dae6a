"""Modules from outside the project: made by a factory in the current folder, or stored in a .pt2 file."""

import importlib
import inspect
import json
import os
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from export.sources.module.weights_file import PICKLES, safe_copy

MAX_PT2_FILES = 1 << 16
# Parts of a .pt2 file that the reader of torch runs: pickles of objects, and compiled code.
OBJECTS = ("custom_obj", "opaque_obj", "aotinductor", "serialized_")


@dataclass(frozen=True, kw_only=True)
class Made:
    """A module with its parameters of `forward` in order, None if it takes any; `required` have no default.

    `by_position` says that its arguments have no names.
    """

    module: nn.Module
    parameters: tuple[str, ...] | None
    required: tuple[str, ...] = ()
    by_position: bool = False
    source_file: Path | None = None


class Exported(nn.Module):
    """A module of torch.export, which has one mode, the one in which it was exported."""

    def __init__(self, program: Any) -> None:
        super().__init__()
        self.program = program

    def forward(self, *arguments: Any) -> Any:
        return self.program(*arguments)

    def train(self, mode: bool = True) -> "Exported":
        self.training = mode
        return self


def make_module(name: str, keywords: Mapping[str, Any]) -> Made:
    """Call the factory `package.module:factory`. Raises ValueError, one sentence with what is wrong."""
    path, _, attribute = name.partition(":")
    if Path(path).suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which runs code when it is read; {safe_copy(Path(path))}; and name the function that "
            "makes the module"
        )
    is_script = path.endswith(".py") and Path(path).is_file()
    if not attribute or is_script or not all(part.isidentifier() for part in path.split(".")):
        hint = f"; did you mean '{Path(path).stem}:{attribute or 'CLASS'}'?" if path.endswith(".py") else ""
        raise ValueError(f"expected package.module:factory or a .pt2 file, not {name!r}{hint}")
    if (folder := os.getcwd()) not in sys.path and "" not in sys.path:  # noqa: PTH109 - as the import system writes it
        sys.path.append(folder)
    try:
        factory = getattr(importlib.import_module(path), attribute, None)
        module = None if factory is None else factory(**keywords)
    # A foreign module may raise anything, and may even end the process.
    except (Exception, SystemExit) as error:
        raise ValueError(f"{name} cannot be made: {type(error).__name__}: {_line(error)}") from error
    finally:
        # The paths of the command line are relative to it.
        os.chdir(folder)
    if factory is None:
        raise ValueError(f"{path} has no {attribute}")
    if not isinstance(module, nn.Module):
        raise ValueError(f"{name} gives a {type(module).__name__}, expected a torch.nn.Module")
    parameters, required = _parameters(module)
    source = inspect.getsourcefile(type(module)) if type(module).__module__ != "builtins" else None
    is_foreign = source is not None and type(module).__module__.split(".")[0] != "torch"
    return Made(
        module=module.eval(),
        parameters=parameters,
        required=required,
        source_file=Path(source) if source is not None and is_foreign else None,
    )


def read_pt2(path: Path) -> Made:
    """Read a program of torch.export. Raises ValueError for a file that holds objects of Python, which run code."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    _check_pt2(path)
    try:
        program = torch.export.load(path)
        module = program.module()
    # The reader raises whatever its parts raise.
    except Exception as error:
        raise ValueError(f"{path} cannot be read by torch {torch.__version__}: {_line(error)}") from error
    names = tuple(program.graph_signature.user_inputs)
    return Made(module=Exported(module), parameters=names, required=names, by_position=True)


def _check_pt2(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()[:MAX_PT2_FILES]
            configs = [json.loads(archive.read(name)) for name in names if name.endswith("_config.json")]
    except (zipfile.BadZipFile, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no file of torch.export.save: {error}") from error
    if not all(isinstance(config, dict) and isinstance(config.get("config", {}), dict) for config in configs):
        raise ValueError(f"{path} is no file of torch.export.save: one of its parts lists no tensors")
    if not any(name.endswith("/archive_format") for name in names):
        raise ValueError(f"{path} is not in the format that torch.export.save writes since torch 2.9")
    entries = [
        entry for config in configs for entry in config.get("config", config).values() if isinstance(entry, dict)
    ]
    objects = [name for name in names if any(word in name for word in OBJECTS)]
    if objects or any(entry.get("use_pickle") for entry in entries):
        raise ValueError(
            f"{path} holds objects or compiled code, which would run when they are read; export plain tensors only"
        )


def _parameters(module: nn.Module) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    parameters = inspect.signature(module.forward).parameters.values()
    if any(parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD} for parameter in parameters):
        named = [parameter for parameter in parameters if parameter.kind == parameter.POSITIONAL_OR_KEYWORD]
        if not named:
            return None, ()
        parameters = named  # type: ignore[assignment]
    names = tuple(parameter.name for parameter in parameters)
    return names, tuple(parameter.name for parameter in parameters if parameter.default is parameter.empty)


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
