"""The requests of any pair have one item and several, every option, and an item for each label."""

from export.gates.requests.label_reference import whole_items
from export.gates.requests.prediction import first_items_by_label, predict_cases
from tests.export.tiny_sources import make_candidate


def test_requests_have_one_item_and_several_and_every_option() -> None:
    bodies = [request.body for request in predict_cases(make_candidate("tiny-multilabel"))]
    assert [len(body["images"]) for body in bodies] == [1, 1, 3, 2, 8]
    assert [body.get("threshold") for body in bodies] == [None, 0.0, 0.75, None, 0.0]


def test_each_label_that_ranks_first_has_an_item() -> None:
    candidate = make_candidate("tiny-table")
    source = candidate.source
    best = source.predict(dict(source.examples.inputs))["probabilities"].argmax(1)
    items = first_items_by_label(candidate, whole_items(source.examples))
    assert [int(best[item]) for item in items] == sorted(set(best.tolist()))
    *_, last = predict_cases(candidate)
    assert last.body["top_k"] == 3
    assert len(last.body["rows"]) == len(items)


def test_a_model_without_a_batch_axis_gets_one_item() -> None:
    for request in predict_cases(make_candidate("tiny-unbatched")):
        assert set(request.body) == {"tensors"}
