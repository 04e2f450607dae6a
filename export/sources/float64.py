"""A model in float64, the reference for what float32 rounds away.

A small model is copied. The copy of a large one has its own modules and the same weights, which each module converts
while it runs and drops afterwards: at no time do more than the weights of one branch of modules exist in float64.
"""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

# The weights of larger models are converted while they are used.
MAX_COPIED_BYTES = 512 << 20
# An attribute of the modules whose weights are float32 between two calls.
ON_DEMAND = "computes_float64_on_demand"
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def float64_twin(model: ModuleT, *, max_copied_bytes: int = MAX_COPIED_BYTES) -> ModuleT:
    """The model in float64; the model itself is left as it is.

    The twin of a large model computes in float64 what its modules compute in their own `forward`. Code that uses the
    weights of another module gets them in float32, so it raises a RuntimeError for two types of numbers.
    """
    if sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) <= max_copied_bytes:
        return copy.deepcopy(model).double()
    shared: dict[int, Any] = {id(parameter): parameter for parameter in model.parameters()}
    twin = copy.deepcopy(model, shared)
    for module in twin.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = _double(buffer)
        _OnDemand(module)
    return twin


def computes_float64(model: nn.Module) -> bool:
    """Whether the model is such a twin, copied or not."""
    is_on_demand: bool = getattr(model, ON_DEMAND, False)
    return is_on_demand or next(model.parameters()).dtype == torch.float64


class _OnDemand:
    """Converts the weights and the arguments of one module for each call."""

    def __init__(self, module: nn.Module) -> None:
        setattr(module, ON_DEMAND, True)
        self._stored = dict(module.named_parameters(recurse=False))
        module.register_forward_pre_hook(self._convert, with_kwargs=True)
        module.register_forward_hook(self._restore, always_call=True)

    def _convert(self, module: nn.Module, args: Any, kwargs: Any) -> tuple[Any, Any]:
        for name, parameter in self._stored.items():
            self._set(module, name, nn.Parameter(_double(parameter.detach()), requires_grad=False))
        args = tuple(_double(value) if isinstance(value, Tensor) else value for value in args)
        return args, {key: _double(value) if isinstance(value, Tensor) else value for key, value in kwargs.items()}

    def _restore(self, module: nn.Module, *_: Any) -> None:
        for name, parameter in self._stored.items():
            self._set(module, name, parameter)

    @staticmethod
    def _set(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        # Recurrent layers also keep their weights in a list, which an assignment renews.
        setattr(module, name, parameter)


def _double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.dtype == torch.float32 else tensor
