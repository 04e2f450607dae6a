"""Send generated requests to every operation of the OpenAPI document, and check every answer against the document.

    python -m benchmarks.proof.openapi_cases [--cases 10000] [--seed 1] [--bundles bundles]

schemathesis generates requests that fit the schemas and requests that do not. Most of those that fit get the example
of a READY model with some fields replaced, because a request of generated fields alone rarely gets past the name of its
model. An answer fails if its status is 500 or more, if the operation does not list its status, media type, headers or
schema, or if a request that does not fit the schemas is answered with 200. Each operation gets its share of the cases;
one whose requests cannot vary that much gets fewer.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode

from tests.service.hosts import GRANIAN, running_server

CHECK_NAMES = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
]
READ_SHARE = 0.1  # of the cases: operations without a body have little to vary
TIMEOUT = "X-Request-Timeout-Ms"
MIN_TIMEOUT_MS = 10_000  # a shorter deadline would be missed, as documented
ANSWER_TIMEOUT_S = 60


@dataclass(kw_only=True)
class Tally:
    """The cases of one operation: answers by status, and failures with the requests that caused them."""

    operation: str
    statuses: Counter[int] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def num_cases(self) -> int:
        return sum(self.statuses.values())


def check_operations(address: str, *, num_cases: int, seed_value: int) -> list[Tally]:
    """Return what became of the requests to each operation of the service at `address`."""
    load_all_checks()
    checks = CHECKS.get_by_names(CHECK_NAMES)
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    with_body = sum(bool(operation.body) for operation in operations)
    shares = {True: (1 - READ_SHARE) / max(with_body, 1), False: READ_SHARE / (len(operations) - with_body)}
    tallies = []
    for operation in operations:
        tally = Tally(operation=operation.label)
        share = max(int(num_cases * shares[bool(operation.body)]), 2)
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _check_operation(operation, mode, share // 2, seed_value, checks, tally)
        tallies.append(tally)
    return tallies


def _check_operation(  # noqa: PLR0917
    operation: Any, mode: GenerationMode, num_cases: int, seed_value: int, checks: list[Any], tally: Tally
) -> None:
    examples = _examples(operation)

    @seed(seed_value)
    @settings(
        max_examples=num_cases, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), data=st.data())
    def send(case: Any, data: Any) -> None:
        if mode == GenerationMode.POSITIVE and examples and data.draw(st.integers(0, 3)):
            _use_example(case, data.draw(st.sampled_from(examples)), data)
        _lengthen_timeout(case)
        response = case.call(timeout=ANSWER_TIMEOUT_S)
        tally.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=checks)
        except FailureGroup as group:
            for failure in group.exceptions:
                tally.failures.setdefault(failure.title, f"{case.as_curl_command()}\n{failure}")

    with suppress(Unsatisfiable):  # an operation without parameters takes no request that does not fit
        send()


def _examples(operation: Any) -> list[tuple[str, Any]]:
    """Return the names of models and their bodies that the operation shows, or the names alone."""
    definition = operation.definition.raw
    content = definition.get("requestBody", {}).get("content", {})
    bodies = content.get("application/json", {}).get("examples", {})
    if bodies:
        return [(name, example["value"]) for name, example in bodies.items()]
    for parameter in definition["parameters"]:
        if parameter["name"] == "model" and parameter["in"] == "path":
            return [(name, None) for name in parameter.get("examples", {})]
    return []


def _use_example(case: Any, example: tuple[str, Any], data: Any) -> None:
    """Name a READY model, and replace some fields of its example by those of the case."""
    name, body = example
    if "model" in (case.path_parameters or {}):
        case.path_parameters["model"] = name
    if isinstance(body, dict) and isinstance(case.body, dict):
        replaced = data.draw(st.sets(st.sampled_from(sorted(case.body)), max_size=2)) if case.body else set()
        case.body = {**body, **{key: case.body[key] for key in replaced - {"model"}}}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    args = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running_server(GRANIAN, args.bundles.resolve(), Path(folder)) as server,
    ):
        tallies = check_operations(server.address, num_cases=args.cases, seed_value=args.seed)
    sys.stdout.write(report(tallies) + "\n")
    for tally in tallies:
        for title, failure in tally.failures.items():
            sys.stdout.write(f"\n{tally.operation}: {title}\n{failure}\n")
    untested = [tally.operation for tally in tallies if not tally.num_cases]
    num_failures = sum(len(tally.failures) for tally in tallies)
    total = sum(tally.num_cases for tally in tallies)
    sys.stdout.write(
        f"\n{total} cases, {num_failures} kinds of failure, operations without a case: {untested or 'none'}\n"
    )
    sys.exit(bool(num_failures or untested))


if __name__ == "__main__":
    main()
