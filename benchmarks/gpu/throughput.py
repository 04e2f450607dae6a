"""Rows a second of a model through the engine, and of a raw session whose inputs and outputs stay on the device."""

import asyncio
import time

import numpy as np
import onnxruntime as ort

from service.bundle import Bundle, Tensors
from service.contract.heads import LanguageModelHead
from service.engine.runner import Runner
from service.engine.sessions.device import PROVIDERS, Device
from service.engine.sessions.session import Session, onnx_options
from service.engine.verification.golden_inputs import complete_inputs

BATCHES = (1, 8, 32, 128, 512)
CONCURRENT = 4


def rows_of(session: Session, bundle: Bundle, batch: int) -> Tensors:
    """Rows of the largest golden case, repeated; of a language model, steps with a cache."""
    cases = bundle.golden
    if isinstance(bundle.manifest.head, LanguageModelHead):
        # One new token for each row, as in decoding.
        cases = tuple(case for case in cases if "past_lengths" in case.inputs) or cases
    case = max(cases, key=lambda one: len(next(iter(one.inputs.values()))))
    inputs = complete_inputs(session, case.inputs)
    return {name: np.ascontiguousarray(np.resize(array, (batch, *array.shape[1:]))) for name, array in inputs.items()}


def raw_rows(bundle: Bundle, inputs: Tensors, device: Device, seconds: float) -> float:
    """Rows a second of onnxruntime alone: the inputs are bound once, and the outputs stay on the device."""
    session = ort.InferenceSession(bundle.model, onnx_options(device, 1), providers=PROVIDERS[device])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)

    def step() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return _rate(step, len(next(iter(inputs.values()))), seconds)


def session_rows(session: Session, inputs: Tensors, seconds: float) -> float:
    """Rows a second of the session of the service, with inputs and outputs in the memory of the host."""
    return _rate(lambda: session.run(inputs), len(next(iter(inputs.values()))), seconds)


async def engine_rows(runner: Runner, session: Session, inputs: Tensors, seconds: float) -> float:
    """Rows a second through the engine, with several requests in flight."""
    count, batch = 0, len(next(iter(inputs.values())))
    await runner.run(session, inputs)
    began = time.perf_counter()

    async def client() -> None:
        nonlocal count
        while time.perf_counter() - began < seconds:
            await runner.run(session, inputs)
            count += 1

    await asyncio.gather(*(client() for _ in range(CONCURRENT)))
    return count * batch / (time.perf_counter() - began)


def _rate(step: object, rows: int, seconds: float) -> float:
    assert callable(step)
    for _ in range(2):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    return count * rows / (time.perf_counter() - began)
