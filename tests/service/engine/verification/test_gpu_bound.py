"""What a session may allocate on a GPU is measured first, and the sessions of a process do not exceed their GPU."""

import threading
from functools import partial
from types import SimpleNamespace

import pytest

from service.bundle import Bundle
from service.engine.process.shortage import ShortageError
from service.engine.sessions.session import Session
from service.engine.verification import gpu_bound
from service.engine.verification.gpu_bound import GpuBounds
from service.engine.verification.warmup import warm_up
from service.errors import DeviceError
from tests.service.engine.gpu.fake_gpu import MIB, FakeGpu


@pytest.fixture
def bundle(bundles: dict[str, Bundle]) -> Bundle:
    """A model whose largest batch has 8 rows."""
    return bundles["image-classifier"]


def create(bundle: Bundle, max_gpu_bytes: int | None = None) -> Session:
    return Session(bundle.model, manifest=bundle.manifest, device="cuda", max_gpu_bytes=max_gpu_bytes)


def max_bytes(bounds: GpuBounds, bundle: Bundle) -> int:
    with bounds.measure(bundle, partial(create, bundle), warm_up) as bound:
        return bound.max_bytes


def test_the_bound_has_the_weights_once_and_the_batch_for_every_run(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    assert bundle.manifest.limits.max_items == 8
    assert max_bytes(GpuBounds(num_runs=3), bundle) == pytest.approx(2860 * MIB, abs=1)
    assert gpu.used == 0, "the session that was measured is closed"


def test_a_small_model_has_32_mib_more(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=2 * MIB, row_bytes=1 * MIB)
    assert max_bytes(GpuBounds(num_runs=2), bundle) == (2 + 2 * 8 + 32) * MIB


def test_weights_that_exceed_what_is_free_are_refused_before_a_session_is_made(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = FakeGpu(monkeypatch, total=64 * MIB)
    gpu.used = gpu.total - bundle.model_bytes + 1
    with pytest.raises(
        ShortageError,
        match=r"tiny-images/[0-9a-f]{12} needs 0 MiB of the GPU for its weights, but 0 MiB of 64 MiB are free, and "
        r"loaded models may take 0 MiB of these: unload a model, .* or use a larger GPU$",
    ):
        max_bytes(GpuBounds(num_runs=1), bundle)
    assert not gpu.sessions
    gpu.used -= 1
    with pytest.raises(ShortageError, match="needs 32 MiB of the GPU for its weights and 1 runs at the same time"):
        max_bytes(GpuBounds(num_runs=1), bundle)
    assert len(gpu.sessions) == 1


def test_what_exceeds_the_whole_gpu_is_no_shortage(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=bundle.model_bytes - 1)
    with pytest.raises(DeviceError, match="for its weights"):
        max_bytes(GpuBounds(num_runs=1), bundle)
    gpu.total, gpu.weights_bytes, gpu.row_bytes = 1000 * MIB, 100 * MIB, 100 * MIB
    with pytest.raises(DeviceError, match="needs 1,870 MiB of the GPU for its weights and 2 runs at the same time"):
        max_bytes(GpuBounds(num_runs=2), bundle)
    assert gpu.used == 0


def test_a_warm_up_that_exceeds_the_gpu_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=1000 * MIB, weights_bytes=200 * MIB, row_bytes=200 * MIB)
    gpu.used = 100 * MIB
    with pytest.raises(
        ShortageError, match=r"tiny-images/\w+ needs more than 900 MiB of the GPU for its warm-up, but "
    ):
        max_bytes(GpuBounds(num_runs=2), bundle)
    assert gpu.used == 100 * MIB, "the session that failed is closed"
    with pytest.raises(RuntimeError, match="another failure"), GpuBounds(num_runs=2).measure(bundle, fail, warm_up):
        pass


def fail(max_gpu_bytes: int) -> Session:
    raise RuntimeError("another failure")


def test_memory_is_reserved_while_a_session_lives(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=2500 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    bounds = GpuBounds(num_runs=2)
    with bounds.measure(bundle, partial(create, bundle), warm_up) as bound:
        session = create(bundle, bound.max_bytes)
        warm_up(session)
        assert bound.reserve(session) == {"device_bytes": 1000 * MIB, "max_device_bytes": 1980 * MIB}
    gpu.row_bytes = 50 * MIB
    with pytest.raises(ShortageError, match="needs more than 520 MiB of the GPU for its warm-up"):
        max_bytes(bounds, bundle)
    gpu.weights_bytes, gpu.row_bytes = 490 * MIB, 2 * MIB
    with pytest.raises(ShortageError, match="1,500 MiB of 2,500 MiB are free, and loaded models may take 980 MiB of"):
        max_bytes(bounds, bundle)
    del session
    assert max_bytes(bounds, bundle) == pytest.approx(1.1 * 522 * MIB, abs=1)


def test_keys_and_values_of_a_language_model_lie_beside_its_session(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = bundles["language-model"]
    gpu = FakeGpu(monkeypatch, total=1000 * MIB, weights_bytes=100 * MIB, row_bytes=1 * MIB)
    bounds = GpuBounds(num_runs=1, kv_cache_bytes=500 * MIB)
    with bounds.measure(bundle, partial(create, bundle), warm_up) as bound:
        session = create(bundle, bound.max_bytes)
        bound.reserve(session)
        assert bound.max_bytes < 200 * MIB, "they are no memory of the session"
    with pytest.raises(ShortageError, match=r"and loaded models may take 5\d\d MiB of these"):
        max_bytes(bounds, bundle)
    monkeypatch.setattr(gpu_bound, "cuda_memory", lambda: SimpleNamespace(num_bytes=400 * MIB))
    gpu.used += 400 * MIB
    with pytest.raises(ShortageError, match=r"and loaded models may take 1\d\d MiB of these"):
        max_bytes(bounds, bundle)
    gpu.used -= 400 * MIB
    del session
    gpu.total = 600 * MIB
    with pytest.raises(DeviceError, match="for its weights and 1 runs at the same time, and keys and values, but"):
        max_bytes(bounds, bundle)


def test_one_load_measures_at_a_time(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=8000 * MIB, weights_bytes=200 * MIB, row_bytes=100 * MIB)
    bounds = GpuBounds(num_runs=1)
    bound_of_second: list[int] = []
    second = threading.Thread(target=lambda: bound_of_second.append(max_bytes(bounds, bundle)))
    with bounds.measure(bundle, partial(create, bundle), warm_up) as bound:
        second.start()
        second.join(0.2)
        session = create(bundle, bound.max_bytes)
        warm_up(session)
        assert len(gpu.sessions) == 2, "the second load has made no session yet"
        bound.reserve(session)
    second.join(30)
    assert bound_of_second == [bound.max_bytes], "the session of the first load is not in the bound of the second"


def test_the_lock_is_free_after_a_failure(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, total=bundle.model_bytes - 1)
    bounds = GpuBounds(num_runs=1)
    with pytest.raises(DeviceError):
        max_bytes(bounds, bundle)
    gpu.total = 100 * MIB
    assert max_bytes(bounds, bundle) > 0
