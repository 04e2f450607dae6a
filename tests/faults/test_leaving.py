"""Clients that leave a real server: nothing is computed for those in the queue, and no step more of a text."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from service.bundle import MODEL, open_bundle
from tests.e2e.serving import SERVE, Started
from tests.service.bodies import body
from tests.service.bundles import NAMES, bundle_files, onnx_model, write_bundle
from tests.service.engine.versions import NAME, publish, request_file, slow_graph
from tests.service.hosts import GRANIAN, ask, counted, send, served, wait_until

NUM_TURNS = 1 << 17  # of the graph's loop: some 0.3 s
NUM_WHO_STAY, NUM_WHO_LEAVE = 10, 5
BODY = {"model": NAME, "images": np.zeros((1, 4, 4), np.uint8).tolist()}
CONTENT = json.dumps(BODY).encode()

WRITER = NAMES["language-model"]
STEP_TURNS = 1 << 13  # of the graph's loop: a step takes some 0.02 s
NUM_TEXTS, NUM_TOKENS, NUM_OTHERS = 3, 150, 5


@pytest.fixture
def slow_bundles(tmp_path: Path) -> Path:
    """A folder with a model that takes its time."""
    changes = {"limits": {"max_items": 3}}
    files = {MODEL: slow_graph(NUM_TURNS)}
    draft = tmp_path / "drafts"
    bundle = open_bundle(draft / NAME / publish(draft, 0, files=files, **changes))
    publish(tmp_path / "bundles", 0, files=files | request_file(bundle, BODY), **changes)
    return tmp_path / "bundles"


def items(host: Started, outcome: str) -> float:
    return counted(host, f'ekiben_engine_items_total{{model="{NAME}",outcome="{outcome}"')


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_what_is_queued_for_clients_that_left_is_never_computed(
    command: tuple[str, ...], slow_bundles: Path, tmp_path: Path
) -> None:
    settings = {"EKIBEN_THREADS": "1", "EKIBEN_MAX_BATCH_ITEMS": "1"}
    with served(command, slow_bundles, tmp_path, **settings) as host:
        assert ask(host.port, "POST", "/classify", CONTENT, content_type="application/json")[0] == 200
        before = items(host, "executed")
        staying = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_WHO_STAY)]
        wait_until(lambda: counted(host, "ekiben_http_in_flight") == NUM_WHO_STAY)
        leaving = [send(host.port, "/classify", len(CONTENT), CONTENT) for _ in range(NUM_WHO_LEAVE)]
        wait_until(lambda: counted(host, "ekiben_engine_queue_items") >= NUM_WHO_LEAVE)
        for client in leaving:
            client.close()
        wait_until(lambda: items(host, "cancelled") == NUM_WHO_LEAVE)
        assert [client.recv(15) for client in staying] == [b"HTTP/1.1 200 OK"] * NUM_WHO_STAY
        for client in staying:
            client.close()
        assert items(host, "executed") == before + NUM_WHO_STAY


def slow_writer() -> bytes:
    """The tiny language model with a loop behind its logits, which stay as they are."""
    model = onnx.ModelProto()
    model.CopyFrom(onnx_model("language-model"))
    graph = model.graph
    next(node for node in graph.node if "logits" in node.output).output[0] = "raw_logits"
    more, kept = (helper.make_node("Identity", [name], [f"{name}_on"]) for name in ("more", "kept"))
    given = [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("more", 9))]
    shape = [None, None, None]
    turn = helper.make_graph(
        [more, kept], "turn", [*given, helper.make_tensor_value_info("kept", 1, shape)],
        [helper.make_tensor_value_info("more_on", 9, []), helper.make_tensor_value_info("kept_on", 1, shape)],
    )  # fmt: skip
    graph.node.append(helper.make_node("Loop", ["turns", "go", "raw_logits"], ["logits"], body=turn))
    constants = {"turns": np.asarray(STEP_TURNS), "go": np.asarray(True)}
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    content: bytes = model.SerializeToString(deterministic=True)
    return content


@pytest.mark.parametrize("command", [GRANIAN, SERVE], ids=["granian", "bentoml"])
def test_a_generation_stops_within_a_step_of_its_client(command: tuple[str, ...], tmp_path: Path) -> None:
    bundles = tmp_path / "bundles"
    changes = {"limits": {"max_items": NUM_TEXTS, "max_steps": 160}}
    files = bundle_files("language-model", model=slow_writer())
    bundle = open_bundle(write_bundle(tmp_path / "drafts", "language-model", files=files, **changes))
    files |= request_file(bundle, body("language-model"))
    write_bundle(bundles, "language-model", files=files, **changes)
    many = json.dumps({"model": WRITER, "prompt": ["the "] * NUM_TEXTS, "max_tokens": NUM_TOKENS, "seed": 1}).encode()
    one = json.dumps({"model": WRITER, "prompt": "the ", "max_tokens": 1, "seed": 1})
    with served(command, bundles, tmp_path, EKIBEN_THREADS="1") as host:

        def steps() -> float:
            return counted(host, f'ekiben_engine_decoder_steps_total{{model="{WRITER}"')

        client = send(host.port, "/generate", len(many), many)
        wait_until(lambda: steps() > 3 * NUM_TEXTS)
        client.close()
        wait_until(lambda: counted(host, 'ekiben_http_requests_total{route="/generate",status="499"}') == 1)
        seen = steps()
        for _ in range(NUM_OTHERS):  # on the only thread: a text that is still written would take steps between them
            assert ask(host.port, "POST", "/generate", one, content_type="application/json")[0] == 200
        assert seen <= steps() - NUM_OTHERS <= seen + NUM_TEXTS < NUM_TEXTS * NUM_TOKENS
