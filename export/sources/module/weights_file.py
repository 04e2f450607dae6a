"""A state_dict in a .safetensors file, loaded strictly into a module. Pickles are refused, because they run code."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

PICKLES = {".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt"}
PREFIXES = ("module.", "_orig_mod.", "model.", "state_dict.")


def load_weights(module: nn.Module, path: Path) -> None:
    """Load all weights of `path` into the module. Raises ValueError, one sentence that names the first wrong key."""
    weights = read_weights(path)
    expected = module.state_dict()
    _check_keys(module, expected, weights, path)
    for key, declared in expected.items():
        tensor = weights.get(key, declared)
        if tensor.shape != declared.shape:
            raise ValueError(
                f"{path}: {key} has the shape {list(tensor.shape)}, the module's has {list(declared.shape)}; the "
                "factory must build the module that was trained ([factory] in the spec holds its keywords)"
            )
        if tensor.is_floating_point() and tensor.isnan().any():
            raise ValueError(f"{path}: {key} holds NaN")
    # Tied weights are stored once.
    module.load_state_dict(weights, strict=False)
    loaded = module.state_dict()
    for key, tensor in weights.items():
        if tensor.is_floating_point() != loaded[key].is_floating_point() or not torch.equal(
            loaded[key], tensor.to(loaded[key].dtype)
        ):
            raise ValueError(
                f"{path}: {key} is {tensor.dtype} and not what the module holds of it ({loaded[key].dtype}); weights "
                "that the module ties must be equal in the file, and whole numbers are no floats"
            )


def safe_copy(path: Path) -> str:
    """What the owner of a pickle does to have the same weights in a file that runs no code."""
    target = path.with_suffix(".safetensors").name
    return (
        f"save the weights with safetensors.torch.save_file(model.state_dict(), {target!r}), or convert the file of a "
        f"state_dict: save_file(torch.load({path.name!r}, weights_only=True), {target!r})"
    )


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file. Raises ValueError for any other file."""
    if path.suffix in PICKLES:
        raise ValueError(f"{path} is a pickle, which runs code when it is read; {safe_copy(path)}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is no .safetensors file: {error}") from error


def _check_keys(module: nn.Module, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> None:
    absent = [key for key in expected if key not in weights and not _is_tied(key, expected, weights)]
    unexpected = [key for key in weights if key not in expected]
    if not absent and not unexpected:
        return
    prefix = next((prefix for prefix in PREFIXES if weights and all(key.startswith(prefix) for key in weights)), None)
    if prefix is not None and not any(key.startswith(prefix) for key in expected):
        raise ValueError(f"{path}: all keys start with {prefix!r}, which the module's do not; save them without it")
    counts = f"{len(absent)} missing, {len(unexpected)} unexpected"
    key, problem = (absent[0], "lacks") if absent else (unexpected[0], "has the unexpected key")
    raise ValueError(
        f"{path} {problem} {key!r} for {type(module).__name__} ({counts}); the factory must build the module that was "
        "trained ([factory] in the spec holds its keywords)"
    )


def _is_tied(key: str, expected: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """Whether the file has this tensor under another of its names."""
    return any(
        other in weights and tensor.shape == expected[key].shape and _same_storage(tensor, expected[key])
        for other, tensor in expected.items()
        if other != key
    )


def _same_storage(a: Tensor, b: Tensor) -> bool:
    if a.device == torch.device("meta") or not a.numel():
        return False
    return a.data_ptr() == b.data_ptr()
