"""Templates render as `transformers` renders them, in a sandbox, and always the same."""

import pytest

from service.contract.heads import ChatTemplate
from service.errors import EkibenError
from service.tasks.openai.chat_template import check_template, render_chat

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello <é>\n"}]
CHATML = """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""
LOOP = (
    "{% for message in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}"
    "{{ bos_token }}{{ message | tojson }}{% endfor %}"
)
MARKED = "{% for message in messages %}\n  {% generation %}\n{{ message.content }}{% endgeneration %}\n{% endfor %}"
DATED = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}no date{% endif %}"


def render(source: str, **tokens: str) -> str:
    return render_chat(ChatTemplate(source=source, special_tokens=tokens), MESSAGES)


@pytest.mark.parametrize("source", [CHATML, LOOP, MARKED])
def test_prompts_are_those_of_transformers(source: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template([MESSAGES], chat_template=source, add_generation_prompt=True, bos_token="<s>")
    assert render(source, bos_token="<s>") == rendered[0]


def test_a_prompt_does_not_depend_on_the_day() -> None:
    assert render(DATED) == "no date"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages.append(1) }}", "refuses"),
        ("{{ ''.__class__.__mro__ }}", "refuses"),
        ("{% for", "refuses"),
    ],
)
def test_a_template_can_refuse_messages_and_nothing_else(source: str, reason: str) -> None:
    with pytest.raises(EkibenError, match=reason) as caught:
        render(source)
    assert (caught.value.slug, caught.value.faults[0].pointer) == ("invalid-request", "/messages")


def test_a_template_that_fails_is_an_error_of_the_service() -> None:
    with pytest.raises(EkibenError, match="ZeroDivisionError") as caught:
        render("{{ 1 // 0 }}")
    assert caught.value.slug == "internal"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for", "fails: TemplateSyntaxError"),
        ("{{ absent.name }}", "fails: UndefinedError"),
        ("{{ ''.__class__.__mro__ }}", "fails: SecurityError"),
        ("{% for i in range(10 ** 9) %}{% endfor %}", "fails: OverflowError"),
        ("{% include 'file' %}", "fails: TypeError"),
        ("Hello", "writes the same prompt for different messages"),
    ],
)
def test_a_template_that_writes_no_conversation_is_named(source: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_template(ChatTemplate(source=source, special_tokens={}))


@pytest.mark.parametrize("source", [CHATML, LOOP, MARKED, "{{ raise_exception('begin with the system') }}"])
def test_a_template_that_writes_or_refuses_a_conversation_passes(source: str) -> None:
    check_template(ChatTemplate(source=source, special_tokens={"bos_token": "<s>"}))
