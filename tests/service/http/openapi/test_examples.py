"""The examples of models; that they are answered is tested with the document."""

from starlette.testclient import TestClient

from service.http.openapi.examples import model_components, request_examples


def test_each_route_has_the_models_that_it_answers(client: TestClient) -> None:
    import bentoml

    repository = bentoml.get_current_service().repository
    names = [model["name"] for model in client.get("/models").json()["models"]]
    examples = request_examples([repository.get(name).manifest for name in names])
    assert set(examples["/v1/chat/completions"]) == {"tiny-chat"}
    assert set(examples["/v1/completions"]) == set(examples["/generate/stream"]) == {"tiny-chat", "tiny-letters"}
    assert set(examples["/generate"]) == {"tiny-chat", "tiny-letters", "tiny-pictures"}
    assert set(examples["/classify"]) == {"tiny-images"}
    assert set(examples["/v2/models/{model}/infer"]) == set(names)


def test_a_language_model_has_no_schema_of_predictions(client: TestClient) -> None:
    import bentoml

    repository = bentoml.get_current_service().repository
    manifests = [repository.get(name).manifest for name in ("tiny-chat", "tiny-images")]
    assert set(model_components(manifests)) == {"tiny-images.images", "tiny-images.prediction"}
