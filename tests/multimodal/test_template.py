"""What a language model reads, against LLaVA-1.5's own strings and against the template of transformers."""

from typing import Any

import pytest

from eyesmith.data.conversations import Turn
from eyesmith.multimodal.language import TinyConfig, build_language
from eyesmith.multimodal.template import TEMPLATES, TemplateName

TWO = (Turn("What is it?", "A cat."), Turn("Which colour?", "It is red."))
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def test_vicuna_is_written_as_llava_writes_it() -> None:
    found = TEMPLATES["vicuna_v1"].render(TWO, has_image=True)
    assert found.text == (
        f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Which colour? ASSISTANT: It is red.</s>"
    )
    assert [found.text[start:end] for start, end in found.learnt] == [" A cat.</s>", " It is red.</s>"]
    asked = TEMPLATES["vicuna_v1"].prompt(TWO[:1], "Which colour?", has_image=True)
    assert asked == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cat.</s>USER: Which colour? ASSISTANT:"
    alone = TEMPLATES["vicuna_v1"].prompt((), "Which colour?", has_image=False)
    assert alone == f"{SYSTEM} USER: Which colour? ASSISTANT:"


def test_the_first_stage_reads_the_picture_and_its_caption_alone() -> None:
    found = TEMPLATES["plain"].render((Turn("Describe it.", "a red cat"),), has_image=True)
    assert found.text == "<image>a red cat\n"
    assert [found.text[start:end] for start, end in found.learnt] == ["a red cat\n"]


def test_chatml_closes_answers_and_learns_no_line_end() -> None:
    found = TEMPLATES["chatml"].render(TWO[:1], has_image=True)
    assert found.text.endswith(
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n"
    )
    assert [found.text[start:end] for start, end in found.learnt] == ["A cat.<|im_end|>"]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_transformers_writes_the_same_from_messages(name: TemplateName, has_image: bool, count: int) -> None:
    template = TEMPLATES[name]
    tokenizer = build_language("tiny", tiny=TinyConfig(width=8, layers=1, heads=1, hidden=8), texts=["a"]).tokenizer
    turns = TWO[:count]
    said: list[dict[str, Any]] = []
    for place, turn in enumerate(turns):
        question: Any = turn.question if template.is_asked else ""
        if has_image and not place:
            question = [{"type": "image"}, {"type": "text", "text": question}]
        said += [{"role": "user", "content": question}, {"role": "assistant", "content": turn.answer}]
    write = lambda messages, more: tokenizer.apply_chat_template(  # noqa: E731
        messages, chat_template=template.jinja, tokenize=False, add_generation_prompt=more
    )
    assert write(said, False) == template.render(turns, has_image=has_image).text
    last = turns[-1].question
    assert write(said[:-1], True) == template.prompt(turns[:-1], last, has_image=has_image)
