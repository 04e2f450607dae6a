"""Every failing path of every route answers with a document of its format, as the OpenAPI document lists it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest

from service.errors import EkibenError, Fault, Slug
from service.http.openapi.document import OPERATIONS, build_document, is_described, served_paths
from service.http.openapi.errors import FORMATS, possible_errors
from service.http.route import InferenceRoute, Route
from service.http.router import served_routes
from service.http.wire.errors import oip_error_response, openai_error_response, problem_response
from tests.e2e.serving import SERVE, ServerProcess
from tests.service.hosts import GRANIAN, JSON, ask, running_server, wait_until
from tests.service.http.openapi.documented import check_response, validate

ROUTES = served_routes()
DESCRIBED = [route for route in ROUTES if is_described(route)]
DOCUMENT = build_document(ROUTES)
MAX_BODY = 65536
DEEP = b'{"model": ' + b"[" * 2000 + b"]" * 2000 + b"}"


@pytest.mark.parametrize("slug", get_args(Slug))
@pytest.mark.parametrize("route", DESCRIBED, ids=lambda route: route.name)
def test_every_error_that_a_route_lists_fits_its_schema(route: Route, slug: Slug) -> None:
    """With ugly texts, and with and without a place in the request."""
    form = FORMATS[route.error_format]
    for faults in ((), (Fault(pointer="/a/0", detail="\ud800"), Fault(pointer="", detail="x" * 5000))):
        response = route.error_format(EkibenError(slug, "\x00é\ud800" * 500, faults))
        document = json.loads(response.body)
        validate(document, form.schema, DOCUMENT)
        if slug in possible_errors(route, OPERATIONS[route.name].errors):
            headers = {"content-type": response.content_type, **dict(response.headers)}
            for path in served_paths(route.name):
                for method in route.methods:
                    body = b"" if method == "HEAD" else response.body
                    check_response(DOCUMENT, method, path, response.status, headers, body)
        elif form.statuses[slug] in {form.statuses[each] for each in possible_errors(route, ())}:
            headers = {"content-type": response.content_type, **dict(response.headers)}
            # Another code under a status that is listed.
            with pytest.raises(jsonschema.ValidationError, match="is not one of"):
                check_response(DOCUMENT, route.methods[0], route.name, response.status, headers, response.body)


def test_formats_are_told_apart() -> None:
    error = EkibenError("unknown-model", "no such model", (Fault(pointer="/model", detail="?"),))
    documents = {form.name: json.loads(write(error).body) for write, form in FORMATS.items()}
    for form in FORMATS.values():
        assert [name for name, document in documents.items() if is_valid(document, form.schema)] == [form.name]


def is_valid(instance: Any, schema: Any) -> bool:
    try:
        validate(instance, schema, DOCUMENT)
    except jsonschema.ValidationError:
        return False
    return True


@pytest.fixture(scope="module")
def bundles_with_a_failing_one(served_bundles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("failing") / "bundles"
    shutil.copytree(served_bundles, root)
    shutil.copytree(root / "tiny-images", root / "tiny-broken")
    return root


@pytest.fixture(scope="module", params=[GRANIAN, SERVE], ids=["granian", "bentoml"])
def host(
    request: pytest.FixtureRequest, bundles_with_a_failing_one: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("host")
    settings = {"EKIBEN_READY_WHEN": "tiny-images", "EKIBEN_MAX_BODY_BYTES": str(MAX_BODY)}
    with running_server(request.param, bundles_with_a_failing_one, folder, **settings) as started:
        wait_until(lambda: states(started).items() >= {"tiny-chat": "READY", "tiny-broken": "FAILED"}.items())
        wait_until(lambda: set(states(started).values()) == {"READY", "FAILED"})
        yield started


def states(host: ServerProcess) -> dict[str, str]:
    return {model["name"]: model["state"] for model in json.loads(ask(host.port, "GET", "/models")[2])["models"]}


Failure = tuple[str, str, bytes, dict[str, str]]  # path, code, body, headers


def failures(route: InferenceRoute) -> list[Failure]:
    """Requests to a route of inference, each with the code of its error."""
    oip = route.error_format is oip_error_response
    native_upload = {"/classify", "/predict"}
    body: dict[str, Any] = {
        "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
        "/classify": {"images": [[[0] * 4] * 4]},
        "/predict": {"images": [[[0] * 4] * 4]},
        "/sequence-predict": {"texts": ["the train"]},
    }.get(route.name, {"prompt": "a"})
    if oip:
        pixels = {"name": "images", "shape": [1, 4, 4], "datatype": "UINT8", "data": [0] * 16}
        body = {"inputs": [pixels]} if route.name.endswith("infer") else {"text_input": "a"}

    def sent(model: str, **changes: Any) -> tuple[str, bytes]:
        path = route.name.replace("{model}", model)
        return path, json.dumps({**body, **changes, **({} if oip else {"model": model})}).encode()

    generates = not route.name.endswith(("classify", "predict", "infer"))
    known = "tiny-images" if not generates and "sequence" not in route.name else "tiny-texts"
    known = "tiny-chat" if generates else known
    path, good = sent(known)
    found: list[Failure] = [
        (path, "malformed-json", b"{", JSON),
        (path, "malformed-json", b"", JSON),
        (path, "malformed-json", b'\xff{"a": 1}', JSON),
        (path, "unsupported-media-type", good, {**JSON, "content-encoding": "br"}),
        (path, "body-too-large", b" " * (MAX_BODY + 1), JSON),
        (path, "invalid-request", b"[]", JSON),
        (path, "invalid-request", good, {**JSON, "x-request-timeout-ms": "soon"}),
        (path, "invalid-request", sent(known, nothing=1)[1], JSON),
        (path, "malformed-json", DEEP, JSON),
        (*_with_code("unknown-model", *sent("nobody")), JSON),
        (*_with_code("not-ready", *sent("tiny-broken")), JSON),
    ]
    if not oip:
        found.append((path, "unsupported-media-type", good, {"content-type": "text/plain"}))
    if route.name in native_upload:
        found += [
            (f"{path}?model=tiny-images", "invalid-request", b"no picture", {"content-type": "image/png"}),
            (f"{path}?model=tiny-images&top_k=0", "invalid-request", b"", {"content-type": "image/png"}),
            (f"{path}?top_k=3", "invalid-request", good, JSON),
        ]
    if generates:
        found.append((*_with_code("wrong-task", *sent("tiny-images")), JSON))
    return found


def _with_code(code: str, path: str, body: bytes) -> tuple[str, str, bytes]:
    return path, code, body


def code_of(document: Any) -> str:
    code: str = document["error"]["code"] if isinstance(document.get("error"), dict) else document["code"]
    return "unknown-model" if code == "model_not_found" else code


@pytest.mark.parametrize(
    "route",
    [route for route in DESCRIBED if isinstance(route, InferenceRoute) and route.scope == "infer"],
    ids=lambda route: route.name,
)
def test_failures_of_inference_on_both_hosts(route: InferenceRoute, host: ServerProcess) -> None:
    for path, code, body, headers in failures(route):
        status, got, answer = ask(host.port, "POST", path, body, **headers)
        assert code_of(json.loads(answer)) == code, (path, answer)
        check_response(DOCUMENT, "POST", route.name, status, got, answer)


@pytest.mark.parametrize("name", ["index", "models/{model}/load", "models/{model}/unload"])
def test_failures_of_the_model_repository_on_both_hosts(name: str, host: ServerProcess) -> None:
    path = f"/v2/repository/{name}"
    bodies = [
        ("malformed-json", b"{"),
        ("malformed-json", DEEP),
        ("body-too-large", b" " * (MAX_BODY + 1)),
        ("invalid-request", b"[]"),
        ("invalid-request", b'{"nothing": 1}'),
        ("invalid-request", b'{"repository_name": "x"}' if name == "index" else b'{"parameters": {"config": "{}"}}'),
    ]
    if name != "index":
        bodies.append(("unknown-model", b"{}"))
    for code, body in bodies:
        status, got, answer = ask(host.port, "POST", path.replace("{model}", "nobody"), body, **JSON)
        assert code_of(json.loads(answer)) == code, (path, answer)
        check_response(DOCUMENT, "POST", path, status, got, answer)


TIMEOUT: list[tuple[str, dict[str, Any]]] = [
    ("/generate", {"model": "tiny-letters", "prompt": ["a"] * 8, "max_tokens": 150}),
    ("/v1/completions", {"model": "tiny-letters", "prompt": ["a"] * 8, "max_tokens": 150}),
    ("/v2/models/{model}/generate", {"text_input": "a", "parameters": {"max_tokens": 150}}),
]


@pytest.mark.parametrize(("path", "body"), TIMEOUT)
def test_a_deadline_that_passes(path: str, body: Any, host: ServerProcess) -> None:
    headers = {**JSON, "x-request-timeout-ms": "1"}
    status, got, answer = ask(host.port, "POST", path.replace("{model}", "tiny-letters"), json.dumps(body), **headers)
    assert code_of(json.loads(answer)) in {"timeout", "overloaded"}
    check_response(DOCUMENT, "POST", path, status, got, answer)


READS = [
    ("/models/{model}", "/models/nobody", "unknown-model"),
    ("/v1/models/{model}", "/v1/models/nobody", "unknown-model"),
    ("/v1/models/{model}", "/v1/models/tiny-broken", "not-ready"),
    ("/v1/models/{model}", "/v1/models/tiny-images", "wrong-task"),
    ("/v2/models/{model}", "/v2/models/nobody", "unknown-model"),
    ("/v2/models/{model}", "/v2/models/tiny-broken", "not-ready"),
    ("/v2/models/{model}/ready", "/v2/models/tiny-broken/ready", "not-ready"),
    ("/v2/models/{model}/versions/{version}", "/v2/models/tiny-images/versions/none", "unknown-model"),
    ("/v2/models/{model}/versions/{version}/ready", "/v2/models/tiny-images/versions/none/ready", "unknown-model"),
]


@pytest.mark.parametrize(("template", "path", "code"), READS)
def test_failures_of_other_routes_on_both_hosts(template: str, path: str, code: str, host: ServerProcess) -> None:
    status, got, answer = ask(host.port, "GET", path)
    assert code_of(json.loads(answer)) == code
    check_response(DOCUMENT, "GET", template, status, got, answer)
    head_status, head, nothing = ask(host.port, "HEAD", path)
    assert head_status == status
    assert head["content-type"] == got["content-type"]
    check_response(DOCUMENT, "HEAD", template, head_status, head, nothing)


NO_ROUTE = [
    ("/nothing", problem_response),
    ("/static_content/swagger-ui.css", problem_response),
    ("/docs", problem_response),
    ("/classify/x", problem_response),
    ("/v2/nothing", oip_error_response),
    ("/v2/models/tiny-images/nothing", oip_error_response),
    ("/v1/nothing", openai_error_response),
]


@pytest.mark.parametrize(("path", "write"), NO_ROUTE, ids=[path for path, _ in NO_ROUTE])
def test_paths_that_are_no_route(path: str, write: Any, host: ServerProcess) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        status, got, answer = ask(host.port, method, path)
        assert (status, code_of(json.loads(answer))) == (404, "unknown-route")
        assert got["content-type"] == FORMATS[write].media_type
        validate(json.loads(answer), FORMATS[write].schema, DOCUMENT)
    assert ask(host.port, "HEAD", path)[::2] == (404, b"")


@pytest.mark.parametrize("route", DESCRIBED, ids=lambda route: route.name)
def test_methods_that_a_route_does_not_have(route: Route, host: ServerProcess) -> None:
    """The framework answers one of them."""
    path = route.name.replace("{model}", "tiny-images")
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - set(route.methods):
        status, got, answer = ask(host.port, method, path)
        assert (status, code_of(json.loads(answer))) == (405, "method-not-allowed")
        assert set(got["allow"].split(", ")) == set(route.methods)
        form = FORMATS[route.error_format]
        assert got["content-type"] == form.media_type
        validate(json.loads(answer), form.schema, DOCUMENT)
