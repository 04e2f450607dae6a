"""The paths of OpenAI's routes are those that the router answers and a batch names."""

from service.http.router import ROUTES
from service.scoring.scorers.openai import ROUTES as BATCH_ROUTES
from service.tasks.openai.routes import CHAT_ROUTE, COMPLETION_ROUTE


def test_the_router_and_batches_have_both_routes() -> None:
    assert {CHAT_ROUTE, COMPLETION_ROUTE} == set(BATCH_ROUTES)
    assert set(BATCH_ROUTES) <= set(ROUTES)
