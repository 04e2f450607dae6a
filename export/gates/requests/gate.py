"""The requests gate: JSON requests through the service's own task code, with responses checked against the reference.

Only a request shows the order of the labels, the tokenizer, the decoding of images, padding and sampling. The reference
computes the same raw items, and the labels, probabilities, tokens and pixels of the response must be its own. The
bundle stores the requests and responses that pass, and the service replays them before it is ready.
"""

from collections.abc import Callable, Iterator

from export.candidate import Candidate
from export.errors import ExportError, MismatchError
from export.gates.requests import classification, generation, prediction
from export.gates.requests.checked_request import Body, CheckedRequest, candidate_model
from service.bundle import RequestCase
from service.contract.pairs import is_latent_generator
from service.errors import EkibenError
from service.tasks.replay import answer_request_sync

Cases = Callable[[Candidate], Iterator[CheckedRequest]]
# The pairs of runs, whose stored requests keep their bytes.
OF_RUNS: dict[str, Cases] = {
    "image -> labels": classification.image_cases,
    "text -> labels": classification.text_cases,
}
BY_PAIR: dict[str, Cases] = {
    "series -> labels": classification.series_cases,
    "series -> token-labels": classification.stateful_cases,
    "text -> language-model": generation.prompt_cases,
}


def check_requests(candidate: Candidate) -> tuple[RequestCase, ...]:
    """Run every request of the pair. Raises ExportError that names the body and the difference."""
    model = candidate_model(candidate)
    cases = []
    for number, request in enumerate(_cases(candidate)(candidate)):
        body = {"model": candidate.manifest.name, **request.body}
        try:
            response = answer_request_sync(model, body)
            request.check(response)
        except (EkibenError, MismatchError, RuntimeError, ValueError, KeyError) as error:
            raise ExportError("requests", f"body {number} ({_summary(request.body)}): {error}") from error
        # The version is the hash of the bundle, and the bundle contains these cases.
        response.pop("version")
        cases.append(RequestCase(request=body, answer=response))
    return tuple(cases)


def _cases(candidate: Candidate) -> Cases:
    manifest = candidate.manifest
    if is_latent_generator(manifest.reader, manifest.head, manifest.inputs):
        return generation.image_cases
    of_runs = {} if candidate.source.run is None else OF_RUNS
    return (of_runs | BY_PAIR).get(manifest.pair, prediction.predict_cases)


def _summary(body: Body) -> str:
    return ", ".join(f"{len(value)} {key}" if isinstance(value, list) else key for key, value in body.items())
