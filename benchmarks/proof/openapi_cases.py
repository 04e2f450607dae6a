"""Send generated requests to every operation of the OpenAPI document, and check every answer against the document.

    python -m benchmarks.proof.openapi_cases [--cases 10000] [--seed 1] [--bundles bundles]

schemathesis generates requests that fit the schemas and requests that do not. Most of those that fit get the example
of a READY model with some fields replaced, because a request of generated fields alone rarely gets past the name of its
model. An answer fails if its status is 500 or more, if the operation does not list its status, media type, headers or
schema, or if a request that does not fit the schemas is answered with 200. Each operation gets its share of the cases;
one whose requests cannot vary that much gets fewer. Each must answer some request with 200.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from tokenizers import Tokenizer

from service.bundle import open_bundle
from service.engine.sessions.model import Model
from service.engine.sessions.session import Session
from tests.service.chat_bundle import answered_case, write_chat_bundle
from tests.service.hosts import GRANIAN, running_server

CHECK_NAMES = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
READ_CASES = 20  # of an operation without a body, which has little to vary
TIMEOUT = "X-Request-Timeout-Ms"
MIN_TIMEOUT_MS = 10_000  # a shorter deadline would be missed, as documented
ANSWER_TIMEOUT_S = 60
UNLOAD = "/unload"


@dataclass(kw_only=True)
class Tally:
    """The cases of one operation: answers by status, and failures with the requests that caused them."""

    operation: str
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def num_cases(self) -> int:
        return sum(self.statuses.values())


@dataclass(frozen=True, kw_only=True)
class Example:
    """The request of one READY model; without a body for an operation that takes none."""

    path: Mapping[str, str]
    body: Mapping[str, Any] | None


def check_operations(address: str, *, num_cases: int, seed_value: int) -> list[Tally]:
    """Return what became of the requests to each operation of the service at `address`."""
    load_all_checks()
    checks = CHECKS.get_by_names(CHECK_NAMES)
    document = httpx.get(f"{address}/openapi.json").raise_for_status().json()
    # From the document and not from its address, whose own operation schemathesis would leave out.
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=address)
    operations = [result.ok() for result in schema.get_all_operations()]
    operations.sort(key=lambda operation: bool(operation.body))
    tallies: list[Tally] = []
    for number, operation in enumerate(operations):
        tally = Tally(operation=operation.label)
        share = READ_CASES
        if operation.body:
            left = num_cases - sum(each.num_cases for each in tallies)
            share = max(ceil(left / (len(operations) - number)), 0) + 2  # some are equal, so they count once
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _check_operation(operation, mode, ceil(share / 2), seed_value, checks, tally)
        tallies.append(tally)
    described = {f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item}
    assert {tally.operation for tally in tallies} == described
    return tallies


def _check_operation(  # noqa: PLR0917
    operation: Any, mode: GenerationMode, num_cases: int, seed_value: int, checks: list[Any], tally: Tally
) -> None:
    examples = _examples(operation)

    def send(case: Any) -> None:
        response = case.call(timeout=ANSWER_TIMEOUT_S)
        tally.statuses[response.status_code] += 1
        if operation.path.endswith(UNLOAD) and response.status_code == HTTPStatus.OK:
            # The next cases need the model.
            load = response.request.url.removesuffix(UNLOAD) + "/load"
            httpx.post(load, timeout=ANSWER_TIMEOUT_S).raise_for_status()
        try:
            case.validate_response(response, checks=checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                tally.failures.setdefault(failure.title, f"{case.as_curl_command()}\n{failure}")

    @seed(seed_value)
    @settings(
        max_examples=max(num_cases - len(examples), 1),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def send_generated(case: Any, data: Any) -> None:
        if mode == GenerationMode.POSITIVE and examples and data.draw(st.integers(0, 3)):
            _use_example(case, data.draw(st.sampled_from(examples)), data)
        _lengthen_timeout(case)
        send(case)

    if mode == GenerationMode.POSITIVE:
        for example in examples:
            body = {} if example.body is None else {"body": example.body, "media_type": "application/json"}
            send(operation.Case(path_parameters=dict(example.path), **body))
    with suppress(Unsatisfiable):  # an operation without parameters takes no request that does not fit
        send_generated()


def _examples(operation: Any) -> list[Example]:
    """Return the examples that the operation shows: models and versions for its path, bodies."""
    definition = operation.definition.raw
    content = definition.get("requestBody", {}).get("content", {})
    bodies = content.get("application/json", {}).get("examples", {})
    in_path = {each["name"]: each.get("examples", {}) for each in definition["parameters"] if each["in"] == "path"}
    models = bodies or in_path.get("model", {})
    return [
        Example(
            path={name: known[model]["value"] for name, known in in_path.items() if model in known},
            body=bodies[model]["value"] if model in bodies else None,
        )
        for model in models
    ]


def _use_example(case: Any, example: Example, data: Any) -> None:
    """Name a READY model, and replace some fields of its example by those of the case."""
    for name, value in example.path.items():
        case.path_parameters[name] = value
    if example.body is not None and isinstance(case.body, dict):
        replaced = data.draw(st.sets(st.sampled_from(sorted(case.body)), max_size=2)) if case.body else set()
        case.body = {**example.body, **{key: case.body[key] for key in replaced - {"model"}}}


def _lengthen_timeout(case: Any) -> None:
    """Replace a deadline that no answer could meet."""
    value = str((case.headers or {}).get(TIMEOUT, ""))
    if value.isdecimal() and value.isascii() and 1 <= int(value) < MIN_TIMEOUT_MS:
        case.headers[TIMEOUT] = str(MIN_TIMEOUT_MS)
    parameters = case.body.get("parameters") if isinstance(case.body, dict) else None
    timeout_us = parameters.get("timeout") if isinstance(parameters, dict) else None
    if type(timeout_us) in {int, float} and 0 < timeout_us < MIN_TIMEOUT_MS * 1000:
        case.body["parameters"]["timeout"] = MIN_TIMEOUT_MS * 1000


def report(tallies: Iterable[Tally]) -> str:
    lines = ["| operation | cases | answers by status | failures |", "| --- | --- | --- | --- |"]
    for tally in tallies:
        statuses = ", ".join(f"{status}: {count}" for status, count in sorted(tally.statuses.items()))
        lines.append(f"| {tally.operation} | {tally.num_cases} | {statuses} | {len(tally.failures)} |")
    return "\n".join(lines)


def add_chat_model(bundles: Path, folder: Path) -> Path:
    """Return a folder with these bundles and a chat model, so that every operation has a model that answers it."""
    root = folder / "bundles"
    shutil.copytree(bundles, root)
    bundle = open_bundle(write_chat_bundle(folder / "draft"))
    model = Model(
        manifest=bundle.manifest,
        session=Session(bundle.model, manifest=bundle.manifest, device="cpu"),
        tokenizer=Tokenizer.from_str(bundle.tokenizer) if bundle.tokenizer else None,
    )
    write_chat_bundle(root, [answered_case(model)])
    return root


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running_server(GRANIAN, add_chat_model(args.bundles, folder), folder) as server:
            tallies = check_operations(server.address, num_cases=args.cases, seed_value=args.seed)
    sys.stdout.write(report(tallies) + "\n")
    for tally in tallies:
        for title, failure in tally.failures.items():
            sys.stdout.write(f"\n{tally.operation}: {title}\n{failure}\n")
    unanswered = [tally.operation for tally in tallies if not tally.statuses[200]]
    num_failures = sum(len(tally.failures) for tally in tallies)
    total = sum(tally.num_cases for tally in tallies)
    sys.stdout.write(
        f"\n{total} cases, {num_failures} kinds of failure, never 200: {', '.join(unanswered) or 'none'}\n"
    )
    sys.exit(bool(num_failures or unanswered))


if __name__ == "__main__":
    main()
