"""One process of several: `sharding_process.py FOLDER` trains five steps in each way and leaves the weights there.

All ways meet in one set of processes, because starting one takes seconds. RANK and the like are set as torchrun does.
"""

import shutil
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eyesmith.data.loader import Batch, Prepare
from eyesmith.errors import ConfigError
from eyesmith.images import PreprocessConfig
from eyesmith.losses import LossConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.encoder import Encoder, Tap
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.optim.held import parts_here
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.train.checkpoint import consolidate
from eyesmith.train.config import DataConfig, ParallelConfig
from eyesmith.train.distributed import World, joined
from eyesmith.train.loop import new_state, train
from eyesmith.train.replay import NonFiniteError
from eyesmith.train.sharding import blank

STEPS, ROWS, SIZE = 5, 8, (32, 32)
WORDS = ("red", "green", "blue", "a", "disc", "square", "on", "white")

BASE = TrainConfig(
    model=ClipConfig(
        name="tiny",
        image=ViTaminConfig(
            image_size=SIZE, widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=16, drop_path_prob=0.4
        ),
        text=ClipTextConfig(width=16, depth=2, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=SIZE),
    ),
    data=DataConfig(path="none"),
    optim=OptimConfig(peak_lr=3e-3, eps=1e-3, ema_decay=0.5, clip_norm=2.0, layer_decay=0.9, text_lr_scale=0.5),
    batch_size=ROWS,
    epochs=1,
    precision="fp32",
)
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "ddp, parts, recomputed": {"accumulate": 2, "checkpoint_blocks": True},
    "fsdp": {"strategy": "fsdp"},
    "fsdp, parts, recomputed": {"strategy": "fsdp", "accumulate": 2, "checkpoint_blocks": True},
    "fsdp, sigmoid": {"strategy": "fsdp", "loss": LossConfig(kind="sigmoid")},
    "ddp, batch norm": {"norms": True},
    "fsdp, batch norm": {"norms": True, "strategy": "fsdp"},
    "fsdp, a copy each": {"strategy": "fsdp", "shards": 1},
    "fsdp, bf16": {"strategy": "fsdp", "precision": "bf16"},
    "fsdp, fp16": {"strategy": "fsdp", "precision": "fp16"},
    "fsdp, from the first": {"strategy": "fsdp", "sent": True, "loss": LossConfig(kind="sigmoid")},
    "fsdp, batch norm, from the first": {"norms": True, "strategy": "fsdp", "sent": True, "shards": 1},
    "ddp, LAMB": {"optim": replace(BASE.optim, name="lamb")},
    "fsdp, LAMB": {"strategy": "fsdp", "optim": replace(BASE.optim, name="lamb")},
    "fsdp, Muon": {"strategy": "fsdp", "optim": replace(BASE.optim, name="muon")},
}


def config_of(way: str) -> TrainConfig:
    """The config of one way to train."""
    changes = dict(WAYS[way])
    for name in ("norms", "sent"):
        changes.pop(name, None)
    parallel = {name: changes.pop(name) for name in ("strategy", "checkpoint_blocks", "shards") if name in changes}
    return replace(BASE, parallel=ParallelConfig(**parallel), **changes)


class Block(nn.Module):
    """What networks of convolutions are made of, with a factor that is a single number."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.gain = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W], as it comes."""
        return x + self.gain * torch.relu(self.norm(self.conv(x)))


class ConvNet(Encoder):
    """A small network with batch norms, one outside of its blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size, self.stride, self.embed_dim, self.mean, self.std = SIZE, 4, 16, (0.5,) * 3, (0.5,) * 3
        self.taps = {"cells": Tap(4, 16)}
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), nn.BatchNorm2d(16, momentum=None))
        self.layers = nn.ModuleList(Block(16) for _ in range(2))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, 16]."""
        return self.dense(pixels).mean((2, 3))

    def dense(self, pixels: Tensor) -> Tensor:
        """[B, 16, 8, 8]."""
        x = self.stem(self.prepare(pixels))
        for layer in self.layers:
            x = layer(x)
        return x

    def blocks(self) -> list[nn.Module]:
        """The residual units."""
        return list(self.layers)

    pyramid = project = tokens = set_image_size = None  # pyright: ignore


class ConvContrastive(Contrastive):
    """Pairs, with the network in place of the image tower."""

    def rebuild(self) -> Clip:
        """As `conv_clip`."""
        return conv_clip(self.model.config)


def conv_clip(config: ClipConfig) -> Clip:
    """A model whose image tower is the network."""
    clip = config.build()
    clip.image = ConvNet()
    return clip


class RandomBatches:
    """Pictures of noise and random captions; every process makes all rows and keeps its own."""

    def __init__(self, world: World, prepare: Prepare) -> None:
        self._own, self._prepare = world.share(ROWS), prepare
        self.steps_per_epoch = STEPS  # an epoch is all there is

    def samples(self, step: int) -> int:
        return step * ROWS

    def batch(self, step: int) -> Batch:
        """One row of the first process is left out in step 2, as a broken picture would be."""
        draws = torch.Generator().manual_seed(step)
        pixels = torch.randint(0, 256, (ROWS, 3, *SIZE), dtype=torch.uint8, generator=draws)
        words = torch.randint(0, len(WORDS), (ROWS, 4), generator=draws)
        texts = [" ".join(WORDS[word] for word in row[: 2 + i % 3]) for i, row in enumerate(words)]
        rows = torch.arange(ROWS)[self._own]
        if step == 2:
            rows = rows[rows != 1]
        batch = Batch(
            pixels=pixels[rows], texts=[texts[row] for row in rows], labels=None, keys=tuple(map(str, rows)), rows=rows
        )
        return batch.with_extra(self._prepare(batch, step))


def trained(
    config: TrainConfig, world: World, folder: Path | None = None, *, norms: bool = False, sent: bool = False
) -> tuple[dict[str, Tensor], list[float]]:
    """Whole weights and averages after all steps, and the losses; saved half way and at the end below `folder`.

    norms: of the network with batch norms. sent: the first process alone has the weights that all begin with.
    """
    torch.manual_seed(0)
    make = partial(conv_clip, config.model) if norms else config.model.build
    clip = blank(make) if sent and not world.is_first else make()
    objective = (ConvContrastive if norms else Contrastive)(clip, config)
    state = new_state(objective, config, world)
    if state.parallel and state.parallel.scaling:
        state.parallel.scaling.value.fill_(256.0)  # far from where one process may overflow and two not
    losses: list[float] = []
    if sent:
        torch.manual_seed(0)
        first = state.whole_model()
        for (name, value), (_, expected) in zip(first.state_dict().items(), make().state_dict().items(), strict=True):
            assert torch.equal(value, expected), name

    def note(state: Any, facts: Any) -> None:
        losses.append(facts.loss)
        if folder is not None and facts.step in (3, STEPS):
            state.save(folder, in_background=facts.step == 3)

    train(state, objective, RandomBatches(world, objective.prepare), config, hooks=[note])
    state.finish_saving()
    state.take_average()
    whole = state.whole_model()
    found = {name: value.detach().clone() for name, value in whole.state_dict().items()}
    return found | {name: value.detach().clone() for name, value in state.extra.items()}, losses


def main() -> None:
    """Train in every way."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # torch's own use of names that it renames
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    root = Path(sys.argv[1])
    with joined() as world:
        for number, way in enumerate(WAYS):
            folder = root / str(number)
            weights, losses = trained(
                config_of(way), world, folder, norms="norms" in WAYS[way], sent="sent" in WAYS[way]
            )
            if world.is_first:
                torch.save({"weights": weights, "losses": losses}, root / f"{number}.pt")
                if way == "fsdp":  # one file of it beside the parts
                    shutil.copytree(folder, root / "one")
                    consolidate(root / "one")
            world.wait()
        refuse_unused(world)
        for strategy in ("ddp", "fsdp"):
            hold_what_is_not_finite(world, strategy)


def refuse_unused(world: World) -> None:
    """A parameter without a part in the loss is named, in place of a wait without end."""
    config = config_of("ddp")
    clip = config.model.build()
    clip.spare = nn.Parameter(torch.zeros(3))
    objective = Contrastive(clip, config)
    with pytest.raises(ConfigError, match=r"optim\.freeze: clip\.spare \(1 in all\) had no part"):
        train(new_state(objective, config, world), objective, RandomBatches(world, objective.prepare), config)


def hold_what_is_not_finite(world: World, strategy: Any) -> None:
    """One row of one process breaks the third step; both end with what they had after the second."""
    # a rate that does not know how long the run is
    optim = replace(BASE.optim, schedule="constant", warmup_frac=0.0)
    config = replace(BASE, optim=optim, parallel=ParallelConfig(strategy=strategy))

    def run(*, is_broken: bool) -> dict[str, Tensor]:
        torch.manual_seed(0)
        objective = Contrastive(config.model.build(), config)
        if is_broken and world.rank == 1:
            objective.model.image.register_forward_hook(
                lambda module, given, out: out.index_fill(0, torch.tensor(1), torch.nan) if state.step == 2 else out
            )
        state = new_state(objective, config, world)
        batches = RandomBatches(world, objective.prepare)
        if is_broken:
            with pytest.raises(NonFiniteError, match="step 3: loss nan"):
                train(state, objective, batches, config)
        else:
            train(state, objective, batches, replace(config, epochs=2 / STEPS))
        assert state.step == 2
        held = {**state.trained(), **state.average}
        held |= {f"{i}/{k}": v for i, kept in enumerate(state.optimizer.state.values()) for k, v in kept.items()}
        return {name: value.detach().clone() for name, value in zip(held, parts_here(held.values()), strict=True)}

    broken, plain = run(is_broken=True), run(is_broken=False)
    assert broken.keys() == plain.keys()
    for name, value in plain.items():
        assert torch.equal(broken[name], value), name


if __name__ == "__main__":
    main()
