"""Renders conversations with the chat template of a model, as `transformers` does.

Invariant: a template runs in jinja2's sandbox, and what it writes depends on the messages alone. `strftime_now` is
therefore not defined: templates that look for it have a date of their own.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from service.contract.heads import ChatTemplate
from service.errors import EkibenError
from service.tasks.body import JsonObject
from service.tasks.faults import fault

# What a template that has mistakes raises beside jinja2's own errors.
FAILURES = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError)


class GenerationBlock(Extension):
    """`{% generation %}`, which marks answers in conversations for training, changes nothing."""

    tags = {"generation"}  # noqa: RUF012 - as jinja2 declares it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def render_chat(template: ChatTemplate, messages: Sequence[JsonObject]) -> str:
    """Return the prompt at whose end the answer begins. Raises EkibenError if the template refuses the messages."""
    try:
        return _render(template, messages)
    except TemplateError as error:
        raise fault("/messages", f"the chat template of the model refuses them: {str(error)[:200]}") from error
    except FAILURES as error:
        raise EkibenError("internal", f"the chat template of the model fails: {type(error).__name__}") from error


def check_template(template: ChatTemplate) -> None:
    """Raise ValueError for a template that no conversation can be written with, or that does not write its messages.

    A template may refuse a conversation by `raise_exception`.
    """
    try:
        first, second = (_render(template, [{"role": "user", "content": text}]) for text in ("Hello", "Goodbye"))
    except (TemplateError, *FAILURES) as error:
        if type(error) is TemplateError:
            return
        raise ValueError(f"the chat template fails: {type(error).__name__}: {str(error)[:200]}") from error
    if first == second:
        raise ValueError("the chat template writes the same prompt for different messages")


def _render(template: ChatTemplate, messages: Sequence[JsonObject]) -> str:
    compiled = _compile(template.source)
    prompt: str = compiled.render(
        messages=messages, add_generation_prompt=True, tools=None, documents=None, **template.special_tokens
    )
    return prompt


@lru_cache(16)
def _compile(source: str) -> Any:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, GenerationBlock]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    return environment.from_string(source)


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)
