"""Keys and values of the rows of a language model, in the memory of the device that computes them.

Shapes: P parts (keys and values of each layer), R slots, B rows in the first slots, S steps of a run, H heads, C
capacity, K head size, V vocabulary.
"""

from copy import copy
from math import prod
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.gpu.memory import Copy, cuda_memory
from service.engine.sessions.device import Device
from service.engine.sessions.device_array import FLOAT_BYTES, DeviceArray, DeviceMemory, DeviceView, scatter
from service.engine.sessions.session import Session

Array = npt.NDArray[Any]
TokenValues = tuple[Array, ...]  # of one row, on the host: [H, tokens, K] for each part


class KeyValues(Protocol):
    """The caches of rows: float32 [R, H, C, K] for each part. Entries at and beyond the length of a row say nothing."""

    def resize(self, slots: int, capacity: int) -> None:
        """Make room for as many slots and tokens, at least as many as before; an error changes nothing."""

    def extend(self, session: Session, ids_BS: Array, lengths_B: Array) -> Array:
        """Compute S tokens of each row, keep their values behind its past, and return the logits [B, S, V]."""

    def write(self, slot: int, first: int, values: TokenValues) -> None:
        """Put values of the host behind the first tokens of a row."""

    def read(self, slot: int, first: int, stop: int) -> TokenValues:
        """Return the values of the tokens from `first` to `stop`, on the host; perhaps as views."""

    def copy_row(self, slot: int, source: Self, source_slot: int, length: int) -> None:
        """Copy the first tokens of a row of the same or of other caches, on the same device."""


def create_key_values(head: LanguageModelHead, device: Device) -> KeyValues:
    """Return caches without a slot."""
    # Kernels of CUDA read four numbers at once, at addresses that are multiples of 16.
    on_host = device == "cpu" or head.head_size % 4
    return HostKeyValues(head) if on_host else DeviceKeyValues(head, cuda_memory())


def cache_parts(head: LanguageModelHead) -> list[str]:
    """Return the names of the caches, without "past_" and "new_"."""
    return [f"{kind}_{layer}" for layer in range(head.layers) for kind in ("key", "value")]


class HostKeyValues:
    """Arrays of numpy. The rows of a run are the first ones, so that they are passed without a copy."""

    def __init__(self, head: LanguageModelHead) -> None:
        self.parts: dict[str, Array] = {
            part: np.zeros((0, head.heads, 0, head.head_size), np.float32) for part in cache_parts(head)
        }

    def resize(self, slots: int, capacity: int) -> None:
        resized: dict[str, Array] = {}
        for part, values in self.parts.items():
            resized[part] = np.zeros((slots, values.shape[1], capacity, values.shape[3]), np.float32)
            resized[part][: values.shape[0], :, : values.shape[2]] = values
        self.parts = resized

    def extend(self, session: Session, ids_BS: Array, lengths_B: Array) -> Array:
        num_rows = len(ids_BS)
        past: Tensors = {f"past_{part}": values[:num_rows] for part, values in self.parts.items()}
        outputs = session.run({"ids": ids_BS, "past_lengths": lengths_B, **past})
        num_steps, rows = ids_BS.shape[1], np.arange(num_rows)
        for part, values in self.parts.items():
            new_BHSK = outputs[f"new_{part}"]
            if num_steps == 1:
                values[rows, :, lengths_B] = new_BHSK[:, :, 0]
                continue
            for row, length in enumerate(lengths_B.tolist()):
                values[row, :, length : length + num_steps] = new_BHSK[row]
        logits: Array = outputs["logits"]
        return logits

    def write(self, slot: int, first: int, values: TokenValues) -> None:
        for part, new_HSK in zip(self.parts.values(), values, strict=True):
            part[slot, :, first : first + new_HSK.shape[1]] = new_HSK

    def read(self, slot: int, first: int, stop: int) -> TokenValues:
        return tuple(part[slot, :, first:stop] for part in self.parts.values())

    def copy_row(self, slot: int, source: Self, source_slot: int, length: int) -> None:
        self.write(slot, 0, source.read(source_slot, 0, length))


class DeviceKeyValues:
    """One array [P, R, H, C, K] of the device: a run reads it, and its results are put into it there."""

    def __init__(self, head: LanguageModelHead, memory: DeviceMemory) -> None:
        self._memory = memory
        self._head, self._names = head, cache_parts(head)
        self._slots, self._capacity = 0, 0
        self._values = DeviceArray(1, memory)
        self._new = DeviceArray(1, memory)  # the results of a run, reused by the next

    def resize(self, slots: int, capacity: int) -> None:
        slots = max(slots, self._slots)  # a shape strategy may have added some
        larger = copy(self)
        larger._slots, larger._capacity = slots, capacity
        larger._values = DeviceArray(len(self._names) * slots * self._head.heads * larger._row_size, self._memory)
        if self._slots:
            larger._copy(0, self, 0, self._capacity, num_slots=self._slots)
        self._values, self._slots, self._capacity = larger._values, slots, capacity

    def extend(self, session: Session, ids_BS: Array, lengths_B: Array) -> Array:
        num_rows, num_steps = ids_BS.shape
        num_computed = session.padded_rows(num_rows)
        if num_computed > self._slots:
            self.resize(num_computed, self._capacity)
        padding = (0, num_computed - num_rows)
        lengths = np.pad(lengths_B, padding)
        inputs: dict[str, Array | DeviceView] = {"ids": np.pad(ids_BS, (padding, (0, 0))), "past_lengths": lengths}
        num_parts, heads, head_size = len(self._names), self._head.heads, self._head.head_size
        past_shape = (num_computed, heads, self._capacity, head_size)
        new_shape = (num_computed, heads, num_steps, head_size)
        size = prod(new_shape)
        if size * num_parts > self._new.size:
            self._new = DeviceArray(size * num_parts, self._memory)
        outputs: dict[str, DeviceView] = {}
        for part, name in enumerate(self._names):
            inputs[f"past_{name}"] = self._values.view(self._row(part, 0) * self._row_size, past_shape)
            outputs[f"new_{name}"] = self._new.view(part * size, new_shape)
        logits = session.run_on_device(inputs, outputs, "logits")
        rows_PBH = np.arange(num_parts * self._slots * heads).reshape(num_parts, -1, heads)[:, :num_computed]
        positions_BS = lengths[:, None] + np.arange(num_steps)
        indices = np.stack(np.broadcast_arrays(rows_PBH[..., None], positions_BS[:, None]), axis=-1)
        rows = self._values.view(0, (num_parts * self._slots * heads, self._capacity, head_size))
        scatter(rows, indices, self._new.view(0, (num_parts, *new_shape)))
        return logits[:num_rows]

    def write(self, slot: int, first: int, values: TokenValues) -> None:
        arrays = [np.ascontiguousarray(part, np.float32) for part in values]
        width = arrays[0][0].nbytes
        self._memory.copy(
            Copy(*self._place(part, slot, first), array.ctypes.data, width, width, self._head.heads)
            for part, array in enumerate(arrays)
        )

    def read(self, slot: int, first: int, stop: int) -> TokenValues:
        shape = (self._head.heads, stop - first, self._head.head_size)
        values = tuple(np.empty(shape, np.float32) for _ in self._names)
        width = values[0][0].nbytes
        self._memory.copy(
            Copy(array.ctypes.data, width, *self._place(part, slot, first), width, self._head.heads)
            for part, array in enumerate(values)
        )
        return values

    def copy_row(self, slot: int, source: Self, source_slot: int, length: int) -> None:
        self._copy(slot, source, source_slot, length)

    def _copy(self, slot: int, source: "DeviceKeyValues", source_slot: int, length: int, *, num_slots: int = 1) -> None:
        width = FLOAT_BYTES * length * self._head.head_size
        self._memory.copy(
            Copy(*self._place(part, slot), *source._place(part, source_slot), width, num_slots * self._head.heads)
            for part in range(len(self._names))
        )

    @property
    def _row_size(self) -> int:
        """The numbers of one row and head."""
        return self._capacity * self._head.head_size

    def _row(self, part: int, slot: int) -> int:
        return (part * self._slots + slot) * self._head.heads

    def _place(self, part: int, slot: int, first: int = 0) -> tuple[int, int]:
        """Return where a token of the first head lies, and how far the next head is behind it, in bytes."""
        offset = self._row(part, slot) * self._row_size + first * self._head.head_size
        return self._values.address + FLOAT_BYTES * offset, FLOAT_BYTES * self._row_size
