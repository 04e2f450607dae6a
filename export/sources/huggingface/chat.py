"""The chat template of a folder, for the head of a language model.

Invariant: the service writes the prompts that `transformers` writes, token by token, or both refuse the messages.
"""

from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from pydantic import ValidationError
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from export.errors import ExportError
from export.sources.huggingface.loading import STAGE, readable_errors, silent
from service.contract.heads import ChatTemplate
from service.errors import EkibenError
from service.tasks.openai.chat_template import check_template, render_chat

# Templates that ask for the date write another prompt every day in `transformers`; the service gives them none.
DATE = "strftime_now"
USER, ANSWER = {"role": "user", "content": " Hello <|x|> é\n"}, {"role": "assistant", "content": "Yes.  "}
CONVERSATIONS = (
    [USER],
    [USER, ANSWER, USER],
    [{"role": "system", "content": "Be brief."}, USER],
    [{"role": "developer", "content": "Be brief."}, USER],
    [USER, USER],
    [{"role": "tool", "content": "1"}],
)


def read_chat_template(folder: Path, tokenizer: str) -> ChatTemplate | None:
    """The folder's template, if it has one; `tokenizer` is the content of the bundle's tokenizer.json.

    Raises ExportError for a template that the service renders in another way than `transformers`.
    """
    with silent(), readable_errors(folder):
        loaded: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    source = loaded.chat_template
    if isinstance(source, dict):
        source = source.get("default")
    if source is None:
        return None
    tokens = {name: token for name, token in loaded.special_tokens_map.items() if isinstance(token, str)}
    try:
        template = ChatTemplate(source=source, special_tokens=tokens)
    except ValidationError as error:
        raise ExportError(STAGE, f"{folder}: the chat template: {error.errors()[0]['msg']}") from error
    try:
        check_template(template)
    except ValueError as error:
        raise ExportError(STAGE, f"{folder}: {error}") from error
    if DATE not in source:
        _compare(folder, template, loaded, Tokenizer.from_str(tokenizer))
    return template


def _compare(folder: Path, template: ChatTemplate, loaded: Any, tokenizer: Tokenizer) -> None:
    for messages in CONVERSATIONS:
        try:
            expected = loaded.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        except (TemplateError, TypeError, ValueError):
            expected = None
        try:
            got = tokenizer.encode(render_chat(template, messages), add_special_tokens=False).ids
        except EkibenError:
            got = None
        if got != expected:
            roles = ", ".join(message["role"] for message in messages)
            raise ExportError(
                STAGE,
                f"{folder}: the chat template gives other tokens than in transformers for messages of {roles}: "
                f"{_describe(got)}, expected {_describe(expected)}",
            )


def _describe(ids: list[int] | None) -> str:
    return "none" if ids is None else f"{ids[:12]}{'…' if len(ids) > 12 else ''}"
