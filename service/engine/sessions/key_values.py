"""Keys and values of the rows of a language model, in the memory of the device that computes them.

Shapes: P parts (keys and values of each layer), R slots, B rows in the first slots, S steps of a run, H heads, C
capacity, K head size, V vocabulary.
"""

from collections.abc import Sequence
from math import prod
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from service.bundle import Tensors
from service.contract.heads import LanguageModelHead
from service.engine.sessions.device import Device
from service.engine.sessions.device_array import DeviceView, device_zeros
from service.engine.sessions.session import Session

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]
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
    return HostKeyValues(head) if device == "cpu" else DeviceKeyValues(head, device)


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
    """One array on the device: a run reads it, and its results are put into it there."""

    def __init__(self, head: LanguageModelHead, device: Device) -> None:
        self._device: Device = device
        self._head, self._names = head, cache_parts(head)
        self._slots, self._capacity = 0, 0
        self._values = device_zeros((1,), device)  # [P * R * H, C, K], once there are slots
        self._new = device_zeros((1,), device)  # the results of a run, reused by the next

    def resize(self, slots: int, capacity: int) -> None:
        occupied, length = range(self._slots), self._capacity
        slots = max(slots, self._slots)  # a shape strategy may have added some
        num_rows = len(self._names) * slots * self._head.heads
        values = device_zeros((num_rows, capacity, self._head.head_size), self._device)
        if occupied:
            # Rows of the same length are copied whole.
            tokens, both = np.arange(length)[None], (self._rows(occupied, slots), self._rows(occupied, self._slots))
            target, source = (_tokens(rows, tokens) if capacity > length else rows[..., None] for rows in both)
            values.write(target, self._values.gather(source))
        self._values, self._slots, self._capacity = values, slots, capacity

    def extend(self, session: Session, ids_BS: Array, lengths_B: Array) -> Array:
        num_rows, num_steps = ids_BS.shape
        num_computed = session.padded_rows(num_rows)
        if num_computed > self._slots:
            self.resize(num_computed, self._capacity)
        padding = (0, num_computed - num_rows)
        lengths = np.pad(lengths_B, padding)
        inputs: dict[str, Array | DeviceView] = {"ids": np.pad(ids_BS, (padding, (0, 0))), "past_lengths": lengths}
        heads, head_size = self._head.heads, self._head.head_size
        past_shape = (num_computed, heads, self._capacity, head_size)
        new_shape = (num_computed, heads, num_steps, head_size)
        size = prod(new_shape)
        if size * len(self._names) > self._new.size:
            self._new = device_zeros((size * len(self._names),), self._device)
        outputs: dict[str, DeviceView] = {}
        for part, name in enumerate(self._names):
            inputs[f"past_{name}"] = self._values.view(part * self._slots * heads, past_shape)
            outputs[f"new_{name}"] = self._new.view(part * size, new_shape)
        logits = session.run_on_device(inputs, outputs, "logits")
        rows = self._rows(range(num_computed), self._slots)
        new = self._new.view(0, (len(self._names), *new_shape))
        self._values.write(_tokens(rows, lengths[:, None] + np.arange(num_steps)), new)
        return logits[:num_rows]

    def write(self, slot: int, first: int, values: TokenValues) -> None:
        self._values.write(self._span(slot, first, first + values[0].shape[1]), np.stack(values)[:, None])

    def read(self, slot: int, first: int, stop: int) -> TokenValues:
        return tuple(self._values.gather(self._span(slot, first, stop)).read()[:, 0])

    def copy_row(self, slot: int, source: Self, source_slot: int, length: int) -> None:
        self._values.write(self._span(slot, 0, length), source._values.gather(source._span(source_slot, 0, length)))

    def _span(self, slot: int, first: int, stop: int) -> Indices:
        return _tokens(self._rows([slot], self._slots), np.arange(first, stop)[None])

    def _rows(self, slots: Sequence[int], num_slots: int) -> Indices:
        """Return where each part and head of some slots lies [P, B, H]."""
        parts_P11, heads = np.arange(len(self._names))[:, None, None], self._head.heads
        return (parts_P11 * num_slots + np.array(slots, np.int64)[:, None]) * heads + np.arange(heads)


def _tokens(rows_PBH: Indices, positions_BS: Indices) -> Indices:
    """Return the indices of tokens [P, B, H, S, 2]."""
    return np.stack(np.broadcast_arrays(rows_PBH[..., None], positions_BS[:, None]), axis=-1)
