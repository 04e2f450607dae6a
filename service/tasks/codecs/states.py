"""Encodes the state of a stateful model as one opaque string, which the client sends back with the next steps.

Invariant: a model version accepts only states that it made itself, and only complete ones inside its domain.
The string is base64url of 6 bytes of the version, then h and c, each float32 little-endian [layers, hidden].
"""

import base64
from typing import Any

import numpy as np
import numpy.typing as npt

from service.contract.readers import State
from service.manifest import Manifest
from service.tasks.domain import describe_range, is_within, outside
from service.tasks.faults import describe_value, fault, type_fault

VERSION_BYTES = 6


def pack_state(manifest: Manifest, h_LH: npt.NDArray[np.float32], c_LH: npt.NDArray[np.float32]) -> str:
    numbers = np.stack([h_LH, c_LH]).astype("<f4").tobytes()
    return base64.urlsafe_b64encode(bytes.fromhex(manifest.version) + numbers).decode()


def unpack_state(text: Any, manifest: Manifest, sizes: State, pointer: str) -> npt.NDArray[np.float32]:
    """Return h and c as one array [2, layers, hidden], zeros for None; raises EkibenError("invalid-request")."""
    shape = (2, sizes.layers, sizes.hidden)
    if text is None:
        return np.zeros(shape, np.float32)
    if not isinstance(text, str):
        raise type_fault(pointer, "null or a `state` of an earlier answer", text)
    try:
        content = base64.b64decode(text, altchars=b"-_", validate=True)
    except ValueError:
        raise type_fault(pointer, "a `state` of an earlier answer", text) from None
    version, numbers = content[:VERSION_BYTES].hex(), content[VERSION_BYTES:]
    if len(content) >= VERSION_BYTES and version != manifest.version:
        raise fault(pointer, f"expected a state of version {manifest.version}, got one of {version}; restart with null")
    if len(numbers) != 4 * np.prod(shape):
        raise fault(pointer, f"expected a state of {4 * np.prod(shape)} bytes, got {len(numbers)}")
    state = np.frombuffer(numbers, "<f4").reshape(shape).astype(np.float32)
    for part, name in zip(state, ("h", "c"), strict=True):
        allowed = manifest.value_range(name)
        if not is_within(part, allowed):
            layer, unit = np.argwhere(outside(part, allowed))[0].tolist()
            expected = f"a state with a number {describe_range(allowed)} at {name}[{layer}, {unit}]"
            got = describe_value(part[layer, unit].item())
            raise fault(pointer, f"expected {expected}, got {got}; restart with null")
    return state
