"""Gate 5, requests: raw JSON in, JSON out, through the very code that serves, checked against PyTorch.

What only a request can show: the order of the labels, the tokenizer, the decoding of pictures, padding, sampling. For
every body the PyTorch model is asked about the same raw items, and what the answer says (labels, probabilities, tokens,
pixels) must be what PyTorch said. The cases that pass are stored, and replayed before the service is ready.
"""

from collections.abc import Callable, Iterator

from export import generated, labelled
from export.asked import Asked, Body, MismatchError, served
from export.candidate import Candidate, ExportError
from service.bundle import RequestCase
from service.errors import EkibenError
from service.tasks.replay import answer_request_sync

BY_FAMILY: dict[str, Callable[[Candidate], Iterator[Asked]]] = {
    "image-classifier": labelled.images,
    "series-classifier": labelled.series,
    "series-tagger": labelled.tagged,
    "text-classifier": labelled.texts,
    "language-model": generated.prompts,
    "image-generator": generated.drawn,
}


def check_requests(candidate: Candidate) -> tuple[RequestCase, ...]:
    """Answer every body through the task code. Raises ExportError that names the body and what is wrong."""
    model = served(candidate)
    cases = []
    for number, asked in enumerate(BY_FAMILY[candidate.manifest.parameters.family](candidate)):
        body = {"model": candidate.manifest.name, **asked.body}
        try:
            answer = answer_request_sync(model, body)
            asked.check(answer)
        except (EkibenError, MismatchError, RuntimeError, ValueError, KeyError) as error:
            raise ExportError("requests", f"body {number} ({_brief(asked.body)}): {error}") from error
        answer.pop("version")  # the bundle's hash, which these cases are part of
        cases.append(RequestCase(request=body, answer=answer))
    return tuple(cases)


def _brief(body: Body) -> str:
    return ", ".join(f"{len(value)} {key}" if isinstance(value, list) else key for key, value in body.items())
