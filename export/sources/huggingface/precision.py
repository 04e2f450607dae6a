"""Exact arithmetic for a model whose code asks for float32, as norms and softmax of `transformers` do."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from export.sources.float64 import computes_float64


class _Float64(TorchFunctionMode):
    """Whatever asks for float32 gets float64."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.float:
            func = torch.Tensor.double
        wide = [torch.float64 if value is torch.float32 else value for value in args]
        named = {name: torch.float64 if value is torch.float32 else value for name, value in (kwargs or {}).items()}
        return func(*wide, **named)


def in_precision_of(model: torch.nn.Module) -> AbstractContextManager[object]:
    """Within this context, the float64 twin of a model computes in float64 throughout."""
    return _Float64() if computes_float64(model) else nullcontext()
