"""Rows a second of a model through the engine, and of raw sessions whose inputs and outputs stay on the device."""

import asyncio
import time

import numpy as np
import onnxruntime as ort

from service.bundle import Bundle, Tensors
from service.contract.heads import LanguageModelHead
from service.engine.generation.kv_cache import BatchCache, read_prompt
from service.engine.runner import Runner
from service.engine.sessions.device import PROVIDERS, Device
from service.engine.sessions.session import DTYPES, Session, onnx_options
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


def raw_rows(bundle: Bundle, inputs: Tensors, device: Device, seconds: float, *, is_captured: bool = False) -> float:
    """Rows a second of onnxruntime alone: the inputs are bound once, and the outputs stay on the device.

    If `is_captured`, the kernels are recorded as a CUDA graph and replayed; 0 if this model cannot be.
    """
    (name, options), *others = PROVIDERS[device]
    providers = [(name, {**options, "enable_cuda_graph": "1"} if is_captured else options), *others]
    session = ort.InferenceSession(bundle.model, onnx_options(device, 1), providers=providers)
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
    shapes = {name: array.shape for name, array in _outputs(bundle, inputs).items()}
    places = [
        (output, ort.OrtValue.ortvalue_from_shape_and_type(shapes[output.name], DTYPES[output.type], device, 0))
        for output in session.get_outputs()
    ]
    for output, place in places:
        binding.bind_ortvalue_output(output.name, place)

    def step() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    try:
        return _rate(step, len(next(iter(inputs.values()))), seconds)
    except Exception:  # onnxruntime raises bare subclasses of Exception
        if is_captured:
            return 0.0
        raise


def _outputs(bundle: Bundle, inputs: Tensors) -> Tensors:
    session = ort.InferenceSession(bundle.model, onnx_options("cpu", 1), providers=PROVIDERS["cpu"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def session_rows(session: Session, inputs: Tensors, seconds: float) -> float:
    """Rows a second of the session of the service, with inputs and outputs in the memory of the host."""
    return _rate(lambda: session.run(inputs), len(next(iter(inputs.values()))), seconds)


def decoded_rows(session: Session, inputs: Tensors, seconds: float) -> float:
    """Tokens a second of the decode loop's steps, without sampling: caches on the device, logits on the host.

    The inputs of a step say how many rows there are, and the capacity of their caches.
    """
    head = session.manifest.head
    assert isinstance(head, LanguageModelHead)
    batch, _, capacity, _ = inputs["past_key_0"].shape
    prompt = read_prompt(session, np.zeros(capacity // 2, np.int64))
    cache = BatchCache(head, capacity, session.device)

    def refill() -> None:
        while cache.num_rows:
            cache.remove(cache.num_rows - 1)
        for _ in range(batch):
            cache.add(prompt.values, 0, prompt.length)

    steps = 0

    def step() -> None:
        nonlocal steps
        if steps % (capacity - prompt.length) == 0:
            refill()
        steps += 1
        cache.step(session, [0] * batch)

    return _rate(step, batch, seconds)


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
