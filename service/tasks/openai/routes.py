"""The paths of OpenAI's routes that compute."""

COMPLETION_ROUTE = "/v1/completions"
CHAT_ROUTE = "/v1/chat/completions"
