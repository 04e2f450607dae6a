"""Clients that disconnect from a real server: their queued items are not computed, and their generations stop."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.bundle import open_bundle
from service.manifest import MODEL
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.bundles import NAMES, bundle_files, onnx_model, write_bundle
from tests.service.engine.versions import NAME, publish, request_file, slow_graph
from tests.service.hosts import GRANIAN, ask, counted, running_server, send, wait_until
from tests.service.requests import request_body

# Iterations of the graph's loop: about 0.3 s.
NUM_ITERATIONS = 1 << 17
NUM_STAYING, NUM_LEAVING = 10, 5
BODY = {"model": NAME, "images": np.zeros((1, 4, 4), np.uint8).tolist()}
CONTENT = json.dumps(BODY).encode()

LANGUAGE_MODEL = NAMES["language-model"]
# Iterations of the graph's loop in each step of the decoder: about 0.02 s.
STEP_ITERATIONS = 1 << 13
NUM_TEXTS, NUM_TOKENS, NUM_OTHERS = 3, 150, 5


@pytest.fixture
def slow_bundles(tmp_path: Path) -> Path:
    """A folder with a model whose graph takes about 0.3 s."""
    changes = {"limits": {"max_items": 3}}
    files = {MODEL: slow_graph(NUM_ITERATIONS)}
    staging = tmp_path / "drafts"
    bundle = open_bundle(staging / NAME / publish(staging, 0, files=files, **changes))
    publish(tmp_path / "bundles", 0, files=files | request_file(bundle, BODY), **changes)
    return tmp_path / "bundles"


def items(host: ServerProcess, outcome: str) -> float:
    return counted(host, f'ekiben_engine_items_total{{model="{NAME}",outcome="{outcome}"')


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_queued_items_of_disconnected_clients_are_never_computed(
    command: tuple[str, ...], slow_bundles: Path, tmp_path: Path
) -> None:
    settings = {"EKIBEN_THREADS": "1", "EKIBEN_MAX_BATCH_ITEMS": "1"}
    with running_server(command, slow_bundles, tmp_path, **settings) as host:
        assert ask(host.port, "POST", "/classify", CONTENT, content_type="application/json")[0] == 200
        before = items(host, "executed")
        staying = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_STAYING)]
        wait_until(lambda: counted(host, "ekiben_http_in_flight") == NUM_STAYING)
        leaving = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_LEAVING)]
        wait_until(lambda: counted(host, "ekiben_engine_queue_items") >= NUM_LEAVING)
        for client in leaving:
            client.close()
        wait_until(lambda: items(host, "cancelled") == NUM_LEAVING)
        assert [client.recv(15) for client in staying] == [b"HTTP/1.1 200 OK"] * NUM_STAYING
        for client in staying:
            client.close()
        assert items(host, "executed") == before + NUM_STAYING


def slow_language_model() -> bytes:
    """The tiny language model with a loop after its logits that takes time and does not change them."""
    model = onnx.ModelProto()
    model.CopyFrom(onnx_model("language-model"))
    graph = model.graph
    next(node for node in graph.node if "logits" in node.output).output[0] = "raw_logits"
    proceed, carry = (helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("go_on", "carry"))
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("go_on", 9))]
    shape = [None, None, None]
    loop_body = helper.make_graph(
        [proceed, carry], "loop_body", [*inputs, helper.make_tensor_value_info("carry", 1, shape)],
        [helper.make_tensor_value_info("go_on_out", 9, []), helper.make_tensor_value_info("carry_out", 1, shape)],
    )  # fmt: skip
    graph.node.append(helper.make_node("Loop", ["iterations", "start", "raw_logits"], ["logits"], body=loop_body))
    constants = {"iterations": np.asarray(STEP_ITERATIONS), "start": np.asarray(True)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@contextmanager
def slow_host(command: tuple[str, ...], folder: Path) -> Iterator[ServerProcess]:
    """A host of the slow language model with one thread."""
    bundles = folder / "bundles"
    changes = {"limits": {"max_items": NUM_TEXTS, "max_steps": 160}, "control_flow": True}
    files = bundle_files("language-model", model=slow_language_model())
    bundle = open_bundle(write_bundle(folder / "drafts", "language-model", files=files, **changes))
    files |= request_file(bundle, request_body("language-model"))
    write_bundle(bundles, "language-model", files=files, **changes)
    with running_server(command, bundles, folder, EKIBEN_THREADS="1") as host:
        yield host


def check_disconnects(host: ServerProcess) -> None:
    """A generation stops within one step of the disconnect."""
    many = json.dumps(
        {"model": LANGUAGE_MODEL, "prompt": ["the "] * NUM_TEXTS, "max_tokens": NUM_TOKENS, "seed": 1}
    ).encode()
    one = json.dumps({"model": LANGUAGE_MODEL, "prompt": "the ", "max_tokens": 1, "seed": 1})

    def steps() -> float:
        return counted(host, f'ekiben_generation_tokens_total{{model="{LANGUAGE_MODEL}"')

    for path in ("/generate", "/generate/stream"):
        before = steps()
        client = send(host.port, path, len(many), many)
        wait_until(lambda before=before: steps() > before + 3 * NUM_TEXTS)
        client.close()
        closed = f'ekiben_http_requests_total{{model="{LANGUAGE_MODEL}",route="{path}",status="499"}}'
        wait_until(lambda closed=closed: counted(host, closed) == 1)
        at_disconnect = steps()
        # These share the only thread, so a generation that still ran would add steps between them.
        for _ in range(NUM_OTHERS):
            assert ask(host.port, "POST", "/generate", one, content_type="application/json")[0] == 200
        assert at_disconnect <= steps() - NUM_OTHERS <= at_disconnect + NUM_TEXTS
        assert steps() - before < NUM_TEXTS * NUM_TOKENS


def check_shutdown(host: ServerProcess) -> None:
    """Shutdown waits for streams."""
    body = json.dumps({"model": LANGUAGE_MODEL, "prompt": "the ", "max_tokens": 40, "seed": 1}).encode()
    with send(host.port, "/generate/stream", len(body), body) as client:
        received = client.recv(1)
        host.process.terminate()
        while part := client.recv(1 << 16):
            received += part
    assert b"event: end" in received
    assert host.process.wait(timeout=60) in {0, -15}


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_disconnects_end_generations_and_shutdown_waits_for_them(command: tuple[str, ...], tmp_path: Path) -> None:
    with slow_host(command, tmp_path) as host:
        check_disconnects(host)
        check_shutdown(host)
