"""Our chat models in lmms-eval: `python -m lmms_eval --model eyesmith --model_args pretrained=RUN --tasks ...`.

lmms-eval (0.7) finds `manifest` by the entry point group `lmms_eval.models`. It is imported by itself alone, so nothing
here needs it before.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from eyesmith.data.conversations import IMAGE_WORD
from eyesmith.errors import ConfigError
from eyesmith.multimodal.chat import ChatAssistant

NAME = "eyesmith"
_CLASS = "EyesmithChat"
_LONGEST = 1024  # tokens of an answer where the benchmark does not say


def manifest() -> Any:
    """What lmms-eval registers: our model answers its plain requests, a text and a list of pictures each."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest(model_id=NAME, simple_class_path=f"{__name__}.{_CLASS}")


def __getattr__(name: str) -> Any:
    if name == _CLASS:
        return chat_class()
    raise AttributeError(f"module {__name__} has no attribute {name}")


@cache
def chat_class() -> type:
    """The class that lmms-eval makes a model of. Raises ImportError without lmms-eval."""
    from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]

    class EyesmithChat(lmms):
        """A finished chat run. pretrained: its folder. Answers are greedy; one picture a question, or none."""

        is_simple = True

        def __init__(
            self,
            pretrained: str,
            batch_size: int | str = 1,
            device: str | None = None,
            max_batch_size: int | str | None = None,
        ) -> None:
            super().__init__()
            del max_batch_size  # of models that look for a batch that fits
            if not str(batch_size).isdecimal() or int(batch_size) < 1:
                raise ConfigError(f"batch_size: expected 1 or more, got {batch_size!r}")
            self.pretrained, self.batch_size = pretrained, int(batch_size)
            self.assistant = ChatAssistant(pretrained, device=device or "cpu")

        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            """An answer for each request, in order: (text, settings, function to pictures, row, task, split)."""
            # tasks come mixed, and an answer must not be longer because of those that it is batched with
            by_length: dict[int, list[int]] = {}
            for place, one in enumerate(requests):
                by_length.setdefault(int(one.args[1].get("max_new_tokens", _LONGEST)), []).append(place)
            found = [""] * len(requests)
            for longest, places in by_length.items():
                for start in range(0, len(places), self.batch_size):
                    some = places[start : start + self.batch_size]
                    answers = self._answers([requests[place].args for place in some], longest)
                    for place, answer in zip(some, answers, strict=True):
                        found[place] = answer
            return found

        def _answers(self, asked: Sequence[tuple[Any, ...]], longest: int) -> list[str]:
            pictures, texts = [], []
            for text, settings, visuals_of, row, task, split in asked:
                _check_greedy(settings, task)
                visuals = list(visuals_of(self.task_dict[task][split][row]) or ())
                if len(visuals) > 1:
                    raise ConfigError(f"{task}: question {row} shows {len(visuals)} pictures, this model sees one")
                pictures.append(visuals[0] if visuals else None)
                texts.append(text.replace(IMAGE_WORD, "").strip())
            said = self.assistant.chat_many(pictures, texts, max_new_tokens=longest)
            return [_cut(answer, one[1].get("until")) for answer, one in zip(said, asked, strict=True)]

        def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
            """Not offered: every benchmark of LLaVA-1.5 generates."""
            raise ConfigError(f"{len(requests)} likelihoods are asked for; this model answers in words only")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
            """Not offered."""
            raise ConfigError(f"{len(requests)} dialogues of several rounds are asked for; this model answers one")

    return EyesmithChat


def _check_greedy(settings: dict[str, Any], task: str) -> None:
    if settings.get("do_sample") or settings.get("temperature") or int(settings.get("num_beams") or 1) > 1:
        raise ConfigError(f"{task}: asks for sampling or beams; this model answers greedily, as LLaVA-1.5 is measured")


def _cut(answer: str, until: str | Sequence[str] | None) -> str:
    """The answer up to the first of some words."""
    for stop in [until] if isinstance(until, str) else until or ():
        answer = answer.split(stop)[0] if stop else answer
    return answer.strip()
