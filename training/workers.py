"""Workers: the processes of a run, one by default or several that torchrun starts.

Each worker takes an equal share of every batch and gradients are averaged, so several workers take the same steps as
one worker with the whole batch. Only worker 0, the main worker, evaluates, displays and writes files.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


@dataclass(frozen=True, kw_only=True)
class Workers:
    """The workers of a run, seen from the worker with this `rank` and `device`."""

    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over all workers."""
        return network if self.count == 1 else DistributedDataParallel(network)

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast to bfloat16 on a GPU; computation on the CPU stays in float32."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def broadcast(self, value: float) -> float:
        """The value that the main worker passes; every worker must call."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return shared.item()


@contextmanager
def join_workers(device: str) -> Iterator[Workers]:
    """Join the process group of the run, on `device` ("auto", "cpu" or "cuda").

    Raises ValueError for "cuda" on a machine without a GPU.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("--device cuda: PyTorch finds no GPU here; use --device cpu or auto")
    kind = "cuda" if device != "cpu" and available else "cpu"
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    local = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(local)
    if count == 1:
        yield Workers(device=local)
        return
    distributed.init_process_group("nccl" if kind == "cuda" else "gloo")
    try:
        yield Workers(device=local, rank=rank, count=count)
        # A worker that exits early can abort another worker that still communicates with it.
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
