"""How a conversation becomes text for a language model, and which of it is learnt.

Source: LLaVA-1.5's `v1` and `plain` conversations; ChatML; a bare form for small models trained from nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from eyesmith.data.conversations import IMAGE_WORD, Turn

TemplateName = Literal["vicuna_v1", "plain", "chatml", "bare"]

VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
CHATML_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


@dataclass(frozen=True, slots=True)
class Rendered:
    """text: what the model reads, the picture as one `<image>`. learnt: spans of characters, end excluded."""

    text: str
    learnt: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Template:
    """before, after: around what the user says; lead, end: around an answer. jinja: for `apply_chat_template`.

    Learnt is an answer with what is around it: many tokenizers join the blank before it to its first word. is_asked:
    whether questions are read; without them the picture and its caption stand alone, for the projector to describe.
    """

    name: TemplateName
    system: str
    before: str
    after: str
    lead: str
    end: str
    between: str
    image_line: str
    jinja: str
    is_asked: bool = True

    def render(self, turns: Sequence[Turn], *, has_image: bool) -> Rendered:
        """The whole dialogue, its picture, if it has one, at the front of the first question."""
        text, learnt = self.system, []
        for place, turn in enumerate(turns):
            text += self._asked(turn.question, has_image=has_image and not place)
            start = len(text)
            text += self.lead + turn.answer + self.end
            learnt.append((start, len(text)))
            text += self.between
        return Rendered(text, tuple(learnt))

    def prompt(self, turns: Sequence[Turn], question: str, *, has_image: bool) -> str:
        """What the model reads before it answers `question`, after the dialogue `turns`."""
        done = self.render(turns, has_image=has_image).text if turns else self.system
        return done + self._asked(question, has_image=has_image and not turns)

    def _asked(self, question: str, *, has_image: bool) -> str:
        words = question if self.is_asked else ""
        return self.before + (IMAGE_WORD + self.image_line if has_image else "") + words + self.after


_PART = (
    "{%- macro said(content) -%}{%- if content is string -%}{{ content }}{%- else -%}"
    "{%- for part in content -%}{%- if part['type'] == 'image' -%}{{ '<image>LINE' }}"
    "{%- elif part['type'] == 'text' -%}{{ part['text'] }}{%- endif -%}{%- endfor -%}{%- endif -%}{%- endmacro -%}"
)


def _jinja(line: str, rest: str) -> str:
    return _PART.replace("LINE", line) + rest


_VICUNA_JINJA = _jinja(
    "\\n",
    "{{ '" + VICUNA_SYSTEM.replace("'", "\\'") + " ' }}{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{ 'USER: ' + said(message['content']) + ' ASSISTANT:' }}"
    "{%- elif message['role'] == 'assistant' -%}{{ ' ' + said(message['content']) + '</s>' }}{%- endif -%}"
    "{%- endfor -%}",
)
_CHATML_JINJA = _jinja(
    "\\n",
    "{%- if messages[0]['role'] != 'system' -%}{{ '<|im_start|>system\\n"
    + CHATML_SYSTEM
    + "<|im_end|>\\n' }}{%- endif -%}"
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + said(message['content']) + '<|im_end|>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}",
)
_PLAIN_JINJA = _jinja(
    "",
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{ said(message['content']) }}"
    "{%- else -%}{{ said(message['content']) + '\\n' }}{%- endif -%}{%- endfor -%}",
)
_BARE_JINJA = _jinja(
    "",
    "{%- for message in messages -%}{%- if message['role'] == 'user' -%}{{ said(message['content']) }}"
    "{%- else -%}{{ ' ' + said(message['content']) + '</s>' }}{%- endif -%}{%- endfor -%}",
)

TEMPLATES: dict[TemplateName, Template] = {
    one.name: one
    for one in (
        Template(
            name="vicuna_v1",
            system=VICUNA_SYSTEM + " ",
            before="USER: ",
            after=" ASSISTANT:",
            lead=" ",
            end="</s>",
            between="",
            image_line="\n",
            jinja=_VICUNA_JINJA,
        ),
        Template(
            name="chatml",
            system=f"<|im_start|>system\n{CHATML_SYSTEM}<|im_end|>\n",
            before="<|im_start|>user\n",
            after="<|im_end|>\n<|im_start|>assistant\n",
            lead="",
            end="<|im_end|>",
            between="\n",
            image_line="\n",
            jinja=_CHATML_JINJA,
        ),
        Template(
            name="bare",
            system="",
            before="",
            after="",
            lead=" ",
            end="</s>",
            between="",
            image_line="",
            jinja=_BARE_JINJA,
        ),
        Template(
            name="plain",
            system="",
            before="",
            after="",
            lead="",
            end="\n",
            between="",
            image_line="",
            jinja=_PLAIN_JINJA,
            is_asked=False,
        ),
    )
}
