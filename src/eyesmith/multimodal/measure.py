"""How a chat model answers the questions of a set, about the right picture and about another, as result lines."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from eyesmith.config import to_dict
from eyesmith.data.conversations import ConversationSet
from eyesmith.errors import DataError
from eyesmith.eval.features.identity import decoders
from eyesmith.eval.results.rows import ResultRow
from eyesmith.files import write_atomic
from eyesmith.images.transforms import PreprocessConfig
from eyesmith.models.clip import evaluating
from eyesmith.models.identity import weights_hash
from eyesmith.multimodal.model import ChatModel
from eyesmith.multimodal.packing import ChatEncoder
from eyesmith.multimodal.rows import ConversationRows
from eyesmith.multimodal.scoring import Scored, rows_of, score
from eyesmith.train.config import WantedPrecision
from eyesmith.train.precision import choose_precision

ANSWERS_FILE = "answers.jsonl"  # of a run folder: every question measured, and what was said


@dataclass(frozen=True, kw_only=True)
class ChatMeasure:
    """How a run's model is measured. name: what result lines call it; language: what its language model is called.

    num_workers, max_skipped_frac: of reading pictures, as in training; precision: of the eye.
    """

    name: str
    language: str
    encoder: ChatEncoder
    preprocess: PreprocessConfig
    precision: WantedPrecision
    num_workers: int
    max_skipped_frac: float

    def rows(
        self,
        model: ChatModel,
        sets: Iterable[tuple[str, ConversationSet]],
        *,
        folder: Path | None,
        say: Callable[[str], None],
    ) -> list[ResultRow]:
        """Lines of task `chat` for splits by name, the first of them without its name before the kinds of questions.

        A model that sees is asked about the pictures of others too, where a set has several. folder: where every answer
        is kept.
        """
        rows, answers = list[ResultRow](), list[dict[str, Any]]()
        whose = self._facts(model)
        for place, (split, data) in enumerate(sets):
            prefix = f"{split}:" if place else ""
            samples = data.fingerprint()
            run = {**whose, "data": samples, "samples": samples}
            shown = set[int]()  # that could be read
            for is_wrong in (False, True):
                if is_wrong and (model.is_blind or len(shown) < 2):
                    continue
                found = self.scored(model, data, is_wrong=is_wrong)
                shown |= {one.picture for one in found}
                answers += [{"split": split, "wrong_image": is_wrong, **asdict(one)} for one in found]
                if folder is not None:
                    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers)
                    write_atomic(folder / ANSWERS_FILE, lines)
                how = " blind" if model.is_blind else " wrong-image" if is_wrong else ""
                rows += rows_of(found, model=f"{self.name}{how}", prefix=prefix, run=run)
                if not is_wrong:
                    right = sum(one.is_right for one in found)
                    say(f"{split}: {right:,} of {len(found):,} answers are right")
        return rows

    def macro(self, model: ChatModel, data: ConversationSet) -> float:
        """The mean over kinds of questions."""
        return rows_of(self.scored(model, data), model=self.name)[-1].value

    def scored(self, model: ChatModel, data: ConversationSet, *, is_wrong: bool = False) -> list[Scored]:
        """Every question of a set. is_wrong: about another picture; raises DataError where there is none."""
        rows = ConversationRows(
            data,
            data.items,
            1,
            own=slice(0, 1),
            seed=0,
            preprocess=self.preprocess,
            pad=model.eye.config.pad,
            is_seen=True,
            num_workers=self.num_workers,
            max_skipped_frac=self.max_skipped_frac,
        )
        try:
            device = next(model.projector.parameters()).device
            kept = rows.seen_by(model.eye, precision=self.precision, device=device)
        finally:
            rows.close()
        lacking = set(kept.lacking())
        items = [item for item in data.items if item.picture is not None and item.picture not in lacking]
        places = torch.tensor([cast(int, item.picture) for item in items])
        seen = kept.read(other_pictures(places) if is_wrong else places)
        with evaluating(model):
            return score(model, self.encoder, items, seen)

    def _facts(self, model: ChatModel) -> dict[str, Any]:
        """What a number of this model depends on, beside the data."""
        return {
            "weights": weights_hash(model),
            "eye": weights_hash(model.image),
            "preprocess": {**to_dict(self.preprocess), **to_dict(model.eye.config)},
            "template": self.encoder.template.name,
            "language": self.language,
            "precision": choose_precision(self.precision, next(model.projector.parameters()).device),  # of the eye
            "decoders": decoders(),
        }


def other_pictures(places: Tensor) -> Tensor:
    """For each picture, int64 [n], the one before it in the order in which they first come; the last for the first.

    Raises DataError where all are one.
    """
    known = list(dict.fromkeys(places.tolist()))
    if len(known) < 2:
        raise DataError("pictures of others: all questions are about one picture")
    before = dict(zip(known, [known[-1], *known[:-1]], strict=True))
    return torch.tensor([before[place] for place in places.tolist()])
