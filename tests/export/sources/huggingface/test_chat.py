"""The chat template of a folder is taken over if the service renders it as `transformers` does."""

from pathlib import Path
from typing import Any

import pytest

from export.errors import ExportError
from export.sources.huggingface import chat
from export.sources.huggingface.chat import read_chat_template
from service.tasks.openai.chat_template import render_chat
from tests.export.sources.huggingface.folders import characters

LETTERS = (
    "{{ bos_token }}{% for message in messages %}{% if message.role not in ['user', 'assistant', 'system'] %}"
    "{{ raise_exception('who?') }}{% endif %}{{ message.role }} {{ message.content | trim }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
)


def folder_with(tmp_path: Path, template: Any) -> tuple[Path, str]:
    """A folder with a tokenizer that has this template, and the content of its tokenizer.json."""
    tokenizer = characters(has_bos=True)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(tmp_path)
    return tmp_path, tokenizer.backend_tokenizer.to_str()


def test_a_template_is_read_with_its_special_tokens(tmp_path: Path) -> None:
    template = read_chat_template(*folder_with(tmp_path, LETTERS))
    assert template is not None
    assert template.source == LETTERS
    assert template.special_tokens.items() >= {"bos_token": "<s>", "eos_token": "</s>"}.items()
    prompt = render_chat(template, [{"role": "user", "content": " hi "}])
    assert prompt == "<s>user hi</s>\nassistant "


def test_of_several_templates_the_default_counts(tmp_path: Path) -> None:
    template = read_chat_template(*folder_with(tmp_path, {"default": LETTERS, "tool_use": "{{ tools }}"}))
    assert template is not None
    assert template.source == LETTERS


@pytest.mark.parametrize("template", [None, {"tool_use": "{{ tools }}"}], ids=["none", "no default"])
def test_a_folder_may_have_none(template: Any, tmp_path: Path) -> None:
    assert read_chat_template(*folder_with(tmp_path, template)) is None


def test_a_template_with_the_date_uses_its_own(tmp_path: Path) -> None:
    source = "{% if strftime_now is defined %}{{ strftime_now('%d') }}{% else %}then{% endif %}"
    source += "{{ messages[0].content }}"
    template = read_chat_template(*folder_with(tmp_path, source))
    assert template is not None
    assert render_chat(template, [{"role": "user", "content": "a"}]) == "thena"


def test_a_template_that_leaves_the_messages_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="writes the same prompt for different messages"):
        read_chat_template(*folder_with(tmp_path, "Hello"))


def test_a_prompt_of_other_tokens_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, content = folder_with(tmp_path, LETTERS)
    monkeypatch.setattr(chat, "render_chat", lambda template, messages: render_chat(template, messages).upper())
    with pytest.raises(ExportError, match="gives other tokens than in transformers for messages of user"):
        read_chat_template(folder, content)


def test_a_template_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the chat template: String should have at most 65536 characters"):
        read_chat_template(*folder_with(tmp_path, " " * (1 << 16) + "a"))
