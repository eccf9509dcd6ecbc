"""The three kinds of run at their smallest, on batches of noise."""

from dataclasses import replace
from typing import Any

import torch

from eyesmith.data.loader import Batch, Prepare
from eyesmith.images import PreprocessConfig
from eyesmith.losses.config import DistillConfig, LossConfig
from eyesmith.models.classifier import classifier_config
from eyesmith.models.clip import ClipConfig
from eyesmith.models.eva02.masked import MaskedEva02
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.classify import Classify, ClassifyConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.tasks.masked import Masked, MaskedConfig
from eyesmith.tasks.task import Task
from eyesmith.train.clip_teacher import Teacher
from eyesmith.train.config import DataConfig
from eyesmith.train.teacher import PixelTargets, TargetConfig
from eyesmith.train.text_bank import PassingTexts

SIZE, ROWS = (32, 32), 6
WORDS = ("red", "green", "blue", "a", "disc", "square", "on", "white")
IMAGE = ViTaminConfig(
    image_size=SIZE, widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16, drop_path_prob=0.4
)
SHARED: dict[str, Any] = {
    "data": DataConfig(path="none"),
    "optim": OptimConfig(peak_lr=3e-3, eps=1e-3, ema_decay=0.5, clip_norm=2.0),
    "batch_size": ROWS,
    "precision": "fp32",
}
CLIP = TrainConfig(
    model=ClipConfig(
        name="tiny",
        image=IMAGE,
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=SIZE),
    ),
    **SHARED,
)
MASKED = MaskedConfig(
    name="tiny",
    model=Eva02Config(image_size=SIZE, patch_px=8, width=16, depth=2, num_heads=2, hidden_dim=32, embed_dim=0),
    target=TargetConfig(kind="pixels"),
    **SHARED,
)
CLASSIFY = ClassifyConfig(name="tiny", model=replace(IMAGE, embed_dim=0), **SHARED)
CONFIGS: dict[str, Any] = {
    "contrastive": CLIP,
    "contrastive, parts": replace(CLIP, accumulate=2),
    "contrastive, sigmoid": replace(CLIP, loss=LossConfig(kind="sigmoid")),
    "contrastive, teacher": replace(CLIP, loss=LossConfig(distill=DistillConfig(teacher="given", feature=1.0))),
    "contrastive, passing texts": replace(CLIP, model=replace(CLIP.model, lock_text=True)),
    "contrastive, fp16": replace(CLIP, precision="fp16"),
    "masked": MASKED,
    "masked, parts": replace(MASKED, accumulate=2),
    "classify": CLASSIFY,
}


def objective_of(config: Any) -> Task[Any]:
    """With random weights, the same each time."""
    torch.manual_seed(0)
    if isinstance(config, MaskedConfig):
        targets = PixelTargets(config.model.patch_px)
        return Masked(MaskedEva02(config.model, targets.dim), config, targets)
    if isinstance(config, ClassifyConfig):
        classifier = classifier_config("tiny", config.model, ("one", "other", "third")).build()
        return Classify(classifier, config, None)  # pyright: ignore[reportArgumentType]
    clip = config.model.build()
    bank = PassingTexts(clip, "fp32") if config.model.lock_text else None
    teacher = Teacher(config.model.build(), image_size=SIZE) if config.loss.distill.teacher else None
    return Contrastive(clip, config, bank=bank, teacher=teacher)


class Noise:
    """Batches of noise with captions and labels, prepared as the loader does; an epoch has `steps_per_epoch`."""

    def __init__(self, steps_per_epoch: int, prepare: Prepare) -> None:
        self.steps_per_epoch, self._prepare = steps_per_epoch, prepare

    def samples(self, step: int) -> int:
        return step * ROWS

    def batch(self, step: int) -> Batch:
        """A function of the step."""
        draws = torch.Generator().manual_seed(step)
        words = torch.randint(0, len(WORDS), (ROWS, 4), generator=draws)
        batch = Batch(
            pixels=torch.randint(0, 256, (ROWS, 3, *SIZE), dtype=torch.uint8, generator=draws),
            texts=[" ".join(WORDS[word] for word in row[: 2 + i % 3]) for i, row in enumerate(words.tolist())],
            labels=torch.randint(0, 3, (ROWS,), generator=draws),
            keys=tuple(f"{step}/{row}" for row in range(ROWS)),
            rows=torch.arange(ROWS),
        )
        return batch.with_extra(self._prepare(batch, step))
