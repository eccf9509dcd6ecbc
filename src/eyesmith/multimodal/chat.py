"""Asking a finished chat model about pictures."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from eyesmith.data.conversations import IMAGE_WORD
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.images.decode import ImageSource, open_image
from eyesmith.models.identity import weights_hash
from eyesmith.multimodal.fingerprint import described
from eyesmith.multimodal.stock import chat_facts, open_stock
from eyesmith.multimodal.template import TEMPLATES

Message = dict[str, str]
"""{"role": "user" or "assistant", "content": what is said}."""


class ChatAssistant:
    """A language model with an eye, ready to answer. `stock` is transformers' own LlavaForConditionalGeneration."""

    def __init__(
        self, folder: str | os.PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """folder: of a finished chat run. Raises CheckpointError where it holds none."""
        facts = chat_facts(folder)
        self.stock, self.processor = open_stock(folder, dtype=dtype)
        self.facts = {**facts, "weights": weights_hash(self.stock), "model": described(Path(folder))}
        if facts.get("template") not in TEMPLATES:
            raise CheckpointError(f"{folder}: is written by the template {facts.get('template')!r}, which is not known")
        self.template = TEMPLATES[facts["template"]]
        self.stock.to(device)

    def chat(
        self,
        image: ImageSource | None,
        messages: str | Sequence[Message],
        *,
        max_new_tokens: int = 128,
        say: Callable[[str], None] | None = None,
    ) -> str:
        """The greedy answer to the last message. image: at the front of the first question; None for text alone.

        messages: a question, or a dialogue that ends with one. say: is given the words as they come. Raises ConfigError
        as `prompt` does, ImageError as `open_image` does.
        """
        return self.chat_many([image], [messages], max_new_tokens=max_new_tokens, say=say)[0]

    @torch.inference_mode()
    def chat_many(
        self,
        images: Sequence[ImageSource | None],
        dialogues: Sequence[str | Sequence[Message]],
        *,
        max_new_tokens: int = 128,
        say: Callable[[str], None] | None = None,
    ) -> list[str]:
        """Answers of several dialogues as one batch, padded at the left. say: for one dialogue only."""
        if len(images) != len(dialogues) or not dialogues:
            raise ConfigError(
                f"chat: expected a picture, or None, for each dialogue, got {len(images)} and {len(dialogues)}"
            )
        if max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
        texts = [self.prompt(dialogue, image is not None) for image, dialogue in zip(images, dialogues, strict=True)]
        if not all(texts):
            raise ConfigError(
                "chat: there is nothing to read; give a picture, or a question where the template has one"
            )
        pictures = [open_image(image) for image in images if image is not None]
        tokenizer = self.processor.tokenizer
        tokenizer.padding_side = "left"
        given = self.processor(images=pictures or None, text=texts, return_tensors="pt", padding=True)
        given = {name: value.to(self.stock.device) for name, value in given.items() if name != "token_type_ids"}
        if "pixel_values" in given:
            given["pixel_values"] = given["pixel_values"].to(self.stock.dtype)
        made = self.stock.generate(
            **given,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=self._ends() or None,
            streamer=None if say is None else _words(tokenizer, say),
        )
        new = made[:, given["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return [text.split(self.template.end)[0].strip() for text in texts]

    def _ends(self) -> list[int]:
        """Ids at which an answer ends: the language model's own, and the one by which the template ends answers."""
        tokenizer = self.processor.tokenizer
        before, after = (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a", "a" + self.template.end)
        )
        last = after[len(before) :]
        own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        return list(dict.fromkeys([*own, *(last if len(last) == 1 else [])]))

    def prompt(self, dialogue: str | Sequence[Message], has_image: bool) -> str:
        """What is read before the answer.

        Raises ConfigError for a dialogue that does not alternate, and for one that says the word for a picture.
        """
        messages = [{"role": "user", "content": dialogue}] if isinstance(dialogue, str) else list(dialogue)
        roles = [message.get("role") for message in messages]
        if not messages or roles != ["user", "assistant"] * (len(roles) // 2) + ["user"]:
            raise ConfigError(f"messages: expected user and assistant in turn, the user last, got {roles}")
        for message in messages:
            if not isinstance(message.get("content"), str):
                raise ConfigError(f"messages: expected a text as the content of each, got {message.get('content')!r}")
            if IMAGE_WORD in message["content"]:
                raise ConfigError(f"messages: one says {IMAGE_WORD}, which stands for a picture; write it otherwise")
        spoken: list[dict[str, Any]] = [dict(message) for message in messages]
        if not self.template.is_asked:  # it learnt from pictures and captions alone
            spoken = [one | {"content": ""} if one["role"] == "user" else one for one in spoken]
        if has_image:
            first = spoken[0]
            first["content"] = [{"type": "image"}, {"type": "text", "text": first["content"]}]
        return self.processor.apply_chat_template(spoken, add_generation_prompt=True)


def _words(tokenizer: Any, say: Callable[[str], None]) -> Any:
    from transformers import TextStreamer

    class Words(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            del stream_end
            if text:
                say(text)

    return Words(tokenizer, skip_prompt=True, skip_special_tokens=True)


def load_chat(
    folder: str | os.PathLike[str], *, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> ChatAssistant:
    """The chat model of a run folder. Raises CheckpointError where it holds none."""
    return ChatAssistant(folder, device=device, dtype=dtype)
