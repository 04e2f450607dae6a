"""Extreme numbers in every task, through every entrance of both hosts: an answer is finite, or it is an error.

Three kinds of bundles are served: those of `tests.service.bundles`, whose domain is empty, those with a domain, and
those whose graphs compute NaN for some items.
"""

import base64
import json
import math
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.serving import SERVE, ServerProcess
from tests.service.bundles import FAMILIES, NAMES, TASK_OF_FAMILY
from tests.service.hosts import GRANIAN, JSON, Answer, ask, running_server
from tests.service.poisoned import (
    NAN_NAMES,
    NAN_OUTPUT,
    STATE_POISON,
    healthy_item,
    native_body,
    poisoned_item,
    tensors,
    write_poisoned_bundle,
    write_whole_bundle,
)

SERIES_FAMILIES = ("series-classifier", "series-tagger")
FLOAT_FAMILIES = (*SERIES_FAMILIES, "image-generator")
DOMAINS = {
    "series-classifier": {"series": (-4.0, 4.0)},
    "series-tagger": {"series": (-4.0, 4.0), "h": (-1.0, 1.0), "c": (-5.0, 5.0)},
    "image-generator": {"latents": (-9.0, 9.0)},
}
RANGED_NAMES = {family: f"{NAMES[family]}-ranged" for family in DOMAINS}
ITEMS = {
    "image-classifier": "/images",
    "series-classifier": "/sequences",
    "series-tagger": "/sequences",
    "text-classifier": "/texts",
    "language-model": "/prompt",
    "image-generator": "/images",
}
DATATYPES = {"uint8": "UINT8", "int64": "INT64", "float32": "FP32"}
# JSON texts of numbers that float32 does not hold, or that no JSON number is.
NO_NUMBERS = (
    "1e39",
    "-1e39",
    "1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "true",
    "null",
    '"NaN"',
    '"1.5"',
    "1" + "0" * 60,
)
HUGE = ("3e38", "-3e38", "1e30", "-1e20", "340282346638528859811704183484516925440")
TINY = ("1e-40", "-1e-40", "5e-324", "1.4e-45", "-0.0", "1e-400")


@pytest.fixture(scope="module")
def all_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbers")
    for family in FAMILIES:
        write_whole_bundle(root, family, NAMES[family])
        write_poisoned_bundle(root, family)
    for family, ranges in DOMAINS.items():
        domain = {name: {"low": low, "high": high} for name, (low, high) in ranges.items()}
        write_whole_bundle(root, family, RANGED_NAMES[family], domain=domain)
    return root / "bundles"


@pytest.fixture(scope="module", params=["granian", "bentoml"])
def host(request: pytest.FixtureRequest, all_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    command = GRANIAN if request.param == "granian" else SERVE
    with running_server(command, all_bundles, tmp_path_factory.mktemp(request.param)) as started:
        yield started


def native(host: ServerProcess, family: str, body: dict[str, Any] | str) -> Answer:
    content = body if isinstance(body, str) else json.dumps(body)
    return ask(host.port, "POST", f"/{TASK_OF_FAMILY[family]}", content, **JSON)


def oip(
    host: ServerProcess, name: str, inputs: dict[str, Any], *, binary: bool, outputs: tuple[str, ...] = ()
) -> Answer:
    entries: list[dict[str, Any]] = []
    content = b""
    for key, value in inputs.items():
        entry = {"name": key, "shape": list(value.shape), "datatype": DATATYPES[value.dtype.name]}
        if binary:
            content += value.tobytes()
            entries.append({**entry, "parameters": {"binary_data_size": value.nbytes}})
        else:
            entries.append({**entry, "data": value.ravel().tolist()})
    document: dict[str, Any] = {"inputs": entries, "outputs": [{"name": output} for output in outputs]}
    if binary:
        document["parameters"] = {"binary_data_output": True}
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": str(len(head))} if binary else {}
    return ask(host.port, "POST", f"/v2/models/{name}/infer", head + content, **headers)


def no_constant(name: str) -> Any:
    raise AssertionError(f"{name} is no JSON")


def check_finite(answer: Answer) -> dict[str, Any]:
    """Check that a 200 holds finite numbers alone, and return its JSON."""
    status, headers, content = answer
    assert status == 200, content
    size = int(headers.get("inference-header-content-length", len(content)))
    document: dict[str, Any] = json.loads(content[:size], parse_constant=no_constant)
    for output in document["outputs"] if size < len(content) else []:
        start, size = size, size + output["parameters"]["binary_data_size"]
        if output["datatype"] == "FP32":
            assert np.isfinite(np.frombuffer(content[start:size], np.float32)).all()

    def check(value: Any) -> None:
        assert value is not None
        if isinstance(value, float):
            assert math.isfinite(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            check(inner)

    check(document)
    return document


def problem(answer: Answer, code: str, status: int) -> dict[str, Any]:
    got, headers, content = answer
    document: dict[str, Any] = json.loads(content, parse_constant=no_constant)
    assert (got, document["code"], document["status"]) == (status, code, status), document
    assert "json" in headers["content-type"]
    assert document["errors"]
    return document


def state_of(host: ServerProcess, name: str, h: list[float], c: list[float]) -> str:
    """A state as a client could make it: of the right version, with these numbers."""
    _, _, content = ask(host.port, "GET", f"/models/{name}")
    version = bytes.fromhex(json.loads(content)["version"])
    return base64.urlsafe_b64encode(version + struct.pack("<6f", *h, *c)).decode()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_item_without_a_finite_answer_is_an_error_that_names_it(family: str, host: ServerProcess) -> None:
    name = NAN_NAMES[family]
    good, bad = healthy_item(family), poisoned_item(family)
    items = [bad] if family == "image-generator" else [good, bad, good]
    at = items.index(bad)
    document = problem(native(host, family, native_body(family, name, items)), "not-finite", 500)
    assert [fault["pointer"] for fault in document["errors"]] == [f"{ITEMS[family]}/{at}"]
    assert NAN_OUTPUT[family] in document["errors"][0]["detail"]
    assert f"1 of {len(items)} items: {at}" in document["detail"]
    check_finite(native(host, family, native_body(family, name, [good])))


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_tensors_without_a_finite_answer_are_an_error_that_names_the_item(
    family: str, binary: bool, host: ServerProcess
) -> None:
    name = NAN_NAMES[family]
    good, bad = healthy_item(family), poisoned_item(family)
    answer = oip(host, name, tensors(family, [good, bad]), binary=binary)
    document = problem(answer, "not-finite", 500)
    assert document["error"] == document["detail"]
    assert document["errors"][0]["pointer"] == "/1"
    assert "1 of 2 items: 1" in document["error"]
    check_finite(oip(host, name, tensors(family, [good, good]), binary=binary))


@pytest.mark.parametrize("binary", [False, True])
def test_pixels_made_of_nan_are_no_answer(binary: bool, host: ServerProcess) -> None:
    family = "image-generator"
    inputs = tensors(family, [poisoned_item(family)])
    document = problem(oip(host, NAN_NAMES[family], inputs, binary=binary, outputs=("images",)), "not-finite", 500)
    assert "'samples'" in document["error"]
    good = oip(host, NAN_NAMES[family], tensors(family, [3]), binary=binary, outputs=("images",))
    assert [output["name"] for output in check_finite(good)["outputs"]] == ["images"]


def test_a_state_that_is_not_finite_is_no_answer(host: ServerProcess) -> None:
    """The second number of a series makes the next state NaN; its labels stay finite."""
    family, name = "series-tagger", NAN_NAMES["series-tagger"]
    items = [healthy_item(family), [[0.5, STATE_POISON]]]
    document = problem(native(host, family, native_body(family, name, items)), "not-finite", 500)
    assert document["errors"] == [
        {"pointer": "/sequences/1", "detail": "the model's output 'next_c' is not finite for this item"}
    ]
    check_finite(oip(host, name, tensors(family, items), binary=False, outputs=("probabilities",)))
    problem(oip(host, name, tensors(family, items), binary=False, outputs=("next_c",)), "not-finite", 500)


def test_items_of_other_requests_are_answered(host: ServerProcess) -> None:
    """Requests with and without a poisoned item share batches."""
    family = "series-classifier"
    bodies = [native_body(family, NAN_NAMES[family], [item]) for item in (healthy_item(family), poisoned_item(family))]
    expected = native(host, family, bodies[0])[2]
    answers: list[tuple[int, Answer]] = []

    def send(number: int) -> None:
        answers.extend((number % 2, native(host, family, bodies[number % 2])) for _ in range(10))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 60
    for is_bad, answer in answers:
        if is_bad:
            problem(answer, "not-finite", 500)
        else:
            assert answer[::2] == (200, expected)


def with_number(family: str, name: str, number: str) -> str:
    """A native request whose second item has this JSON text as its second number."""
    item = json.dumps(healthy_item(family))
    return (
        json.dumps(native_body(family, name, ["ITEM", [["NUMBER", 0.5]]]))
        .replace('"ITEM"', item)
        .replace('"NUMBER"', number)
    )


@pytest.mark.parametrize("family", SERIES_FAMILIES)
def test_what_float32_does_not_hold_is_refused_with_its_place(family: str, host: ServerProcess) -> None:
    for name in (NAMES[family], RANGED_NAMES[family]):
        for number in NO_NUMBERS:
            document = problem(native(host, family, with_number(family, name, number)), "invalid-request", 422)
            assert document["errors"][0]["pointer"] == "/sequences/1/0/0"
            assert "got" in document["errors"][0]["detail"]


@pytest.mark.parametrize("family", SERIES_FAMILIES)
def test_a_number_outside_the_domain_is_refused_with_its_place_and_the_range(family: str, host: ServerProcess) -> None:
    for number in (*HUGE, "4.0000005", "-4.5"):
        document = problem(
            native(host, family, with_number(family, RANGED_NAMES[family], number)), "invalid-request", 422
        )
        (fault,) = document["errors"]
        assert fault["pointer"] == "/sequences/1/0/0"
        assert fault["detail"].startswith("expected a number of -4.0 to 4.0, got ")
        assert float(fault["detail"].rpartition(" ")[2]) == float(number)
    check_finite(native(host, family, with_number(family, RANGED_NAMES[family], "4.0")))


@pytest.mark.parametrize("family", SERIES_FAMILIES)
def test_without_a_domain_a_huge_number_has_a_finite_answer_or_none(family: str, host: ServerProcess) -> None:
    for number in HUGE:
        answer = native(host, family, with_number(family, NAMES[family], number))
        if answer[0] == 200:
            check_finite(answer)
        else:
            problem(answer, "not-finite", 500)


@pytest.mark.parametrize("family", SERIES_FAMILIES)
def test_denormal_numbers_are_answered(family: str, host: ServerProcess) -> None:
    for name in (NAMES[family], RANGED_NAMES[family]):
        for number in TINY:
            check_finite(native(host, family, with_number(family, name, number)))


def test_denormal_numbers_are_not_flushed_to_zero(host: ServerProcess) -> None:
    """The graph divides the number by itself, which is 1, and NaN if the number was flushed to zero."""
    family, name = "series-tagger", NAN_NAMES["series-tagger"]
    for number in (1e-38, 1e-40, -1e-44, 1.4e-45):
        check_finite(native(host, family, native_body(family, name, [[[0.5, number]]])))
    problem(native(host, family, native_body(family, name, [[[0.5, 1e-46]]])), "not-finite", 500)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(("family", "key"), [(family, key) for family, ranges in DOMAINS.items() for key in ranges])
def test_tensors_outside_the_domain_are_refused_with_place_and_range(
    family: str, key: str, binary: bool, host: ServerProcess
) -> None:
    low, high = DOMAINS[family][key]
    inputs = tensors(family, [healthy_item(family)] * 2)
    number = list(inputs).index(key)
    for value in (3e38, -3e38, high + 1, low - 1, math.nan, math.inf, -math.inf):
        if not binary and not math.isfinite(value):
            continue
        changed = {**inputs, key: inputs[key].copy()}
        changed[key][1].flat[-1] = value
        document = problem(oip(host, RANGED_NAMES[family], changed, binary=binary), "invalid-request", 422)
        place = [1, *(size - 1 for size in inputs[key].shape[1:])]
        assert document["errors"][0]["pointer"] == f"/inputs/{number}"
        assert document["errors"][0]["detail"] == f"expected {low} to {high}, got {np.float32(value)!s} at {place}"
    for value in (high, low, 1e-40, -0.0):
        inputs[key][1].flat[-1] = value
        check_finite(oip(host, RANGED_NAMES[family], inputs, binary=binary))


@pytest.mark.parametrize("family", FLOAT_FAMILIES)
def test_tensors_that_are_not_finite_are_refused(family: str, host: ServerProcess) -> None:
    inputs = tensors(family, [healthy_item(family)] * 2)
    for key in (key for key, value in inputs.items() if value.dtype == np.float32):
        for value in (math.nan, math.inf, -math.inf):
            changed = {**inputs, key: inputs[key].copy()}
            changed[key][1].flat[0] = value
            document = problem(oip(host, NAMES[family], changed, binary=True), "invalid-request", 422)
            assert f"got {value} at [1, " in document["errors"][0]["detail"]
        for value in (3e38, -3e38, 1e-40):
            changed[key][:] = value
            for binary in (False, True):
                answer = oip(host, NAMES[family], changed, binary=binary)
                if answer[0] == 200:
                    check_finite(answer)
                else:
                    problem(answer, "not-finite", 500)


def test_json_tensors_with_what_is_no_number_are_refused(host: ServerProcess) -> None:
    entry = '{"inputs": [{"name": "latents", "shape": [1, 5], "datatype": "FP32", "data": [0.5, 1, NUMBER, 0, 0]}]}'
    for number in NO_NUMBERS:
        answer = ask(
            host.port, "POST", f"/v2/models/{NAMES['image-generator']}/infer", entry.replace("NUMBER", number), **JSON
        )
        document = problem(answer, "invalid-request", 422)
        assert document["errors"][0]["pointer"].startswith("/inputs/0")
        place = document["errors"][0]
        assert "entry 2" in place["detail"] or "[0, 2]" in place["detail"] or place["pointer"].endswith("/data/2")


def test_states_outside_the_domain_are_refused(host: ServerProcess) -> None:
    family = "series-tagger"
    for name, limits in ((NAMES[family], (3.4e38, 3.4e38)), (RANGED_NAMES[family], (1.0, 5.0))):
        body = native_body(family, name, [healthy_item(family)] * 2)
        good = state_of(host, name, [limits[0], -limits[0], 1e-40], [limits[1], -limits[1], 0.0])
        answer = native(host, family, {**body, "states": [None, good]})
        if name == RANGED_NAMES[family] or answer[0] == 200:
            check_finite(answer)
        else:
            problem(answer, "not-finite", 500)
        for value in (math.nan, math.inf, *((3e38, 5.5) if name == RANGED_NAMES[family] else ())):
            for h, c, place in (([0.0, value, 0.0], [0.0] * 3, "h[0, 1]"), ([0.0] * 3, [0.0, 0.0, value], "c[0, 2]")):
                states = [None, state_of(host, name, h, c)]
                document = problem(native(host, family, {**body, "states": states}), "invalid-request", 422)
                assert document["errors"][0]["pointer"] == "/states/1"
                assert f"at {place}, got" in document["errors"][0]["detail"]


WRONG_TYPES: dict[str, tuple[str, str, str]] = {
    # path, body with NUMBER, and the pointer of the fault
    "a pixel": ("/classify", '{"model": "tiny-images", "images": [[[1, 2, NUMBER, 4]] ]}', "/images/0"),
    "an image": ("/classify", '{"model": "tiny-images", "images": [NUMBER]}', "/images/0"),
    "a text": ("/sequence-predict", '{"model": "tiny-texts", "texts": ["rice", NUMBER]}', "/texts/1"),
    "a prompt": ("/generate", '{"model": "tiny-letters", "prompt": ["a", NUMBER]}', "/prompt/1"),
    "a stop": ("/generate", '{"model": "tiny-letters", "prompt": "a", "stop": ["a", NUMBER]}', "/stop/1"),
    "a temperature": ("/generate", '{"model": "tiny-letters", "prompt": "a", "temperature": NUMBER}', "/temperature"),
    "top_p": ("/generate", '{"model": "tiny-letters", "prompt": "a", "top_p": NUMBER}', "/top_p"),
    "max_tokens": ("/generate", '{"model": "tiny-letters", "prompt": "a", "max_tokens": NUMBER}', "/max_tokens"),
    "a seed": ("/generate", '{"model": "tiny-pictures", "seed": NUMBER}', "/seed"),
    "a count": ("/generate", '{"model": "tiny-pictures", "count": NUMBER}', "/count"),
    "top_k": ("/sequence-predict", '{"model": "tiny-texts", "texts": ["rice"], "top_k": NUMBER}', "/top_k"),
}


@pytest.mark.parametrize("place", WRONG_TYPES)
def test_a_field_that_is_no_such_number_is_named(place: str, host: ServerProcess) -> None:
    path, body, pointer = WRONG_TYPES[place]
    numbers = [number for number in NO_NUMBERS if number != "null"]
    if pointer in {"/texts/1", "/prompt/1", "/stop/1"}:
        numbers = [number for number in numbers if not number.startswith('"')] + ["1", "1.5", "null", "[]"]
    for number in (*numbers, "-3e38"):
        document = problem(ask(host.port, "POST", path, body.replace("NUMBER", number), **JSON), "invalid-request", 422)
        assert document["errors"][0]["pointer"].startswith(pointer), number
        assert "got" in document["errors"][0]["detail"]


@pytest.mark.parametrize("temperature", ["5e-324", "1e-300", "1e-40", "10"])
def test_any_temperature_gives_finite_log_probabilities(temperature: str, host: ServerProcess) -> None:
    body = f'{{"model": "tiny-letters", "prompt": "the ", "temperature": {temperature}, "logprobs": true, "seed": 1}}'
    check_finite(native(host, "language-model", body))
