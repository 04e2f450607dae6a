"""Where a run computes: one process on one device, or several processes that torchrun started.

Several workers share each batch and average their gradients, so they take the same steps as one worker would with the
whole batch; worker 0 alone measures, shows and writes.
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
    device: torch.device
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network, averaging its gradients over all workers."""
        return network if self.count == 1 else DistributedDataParallel(network)

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 where a GPU has it in hardware; float32 elsewhere."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda")

    def agree(self, value: float) -> float:
        """Worker 0's value, on every worker."""
        if self.count == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        distributed.broadcast(shared, src=0)
        return shared.item()


@contextmanager
def gather_workers(device: str) -> Iterator[Workers]:
    """All workers of this run, on `device` ("auto", "cpu" or "cuda"). Raises ValueError without such a device."""
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
        distributed.barrier()  # one that leaves while another still talks to it may abort as it ends
    finally:
        distributed.destroy_process_group()
