import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from eyesmith.data.loader import Batch, Loader
from eyesmith.errors import ConfigError, DataError
from eyesmith.images.augment import AugmentConfig
from eyesmith.images.class_views import ClassViewConfig, class_view
from eyesmith.images.mix import MixConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.classify import Classify, ClassifyConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.distributed import World


@pytest.fixture
def config(tmp_path: Path) -> ClassifyConfig:
    """Three classes of four images each, none held out."""
    for color in ("red", "green", "blue"):
        (tmp_path / color).mkdir()
        for size in range(4):
            image = Image.new("RGB", (40, 36), "white")
            ImageDraw.Draw(image).ellipse((8 - size, 8 - size, 30 + size, 30), fill=color)
            image.save(tmp_path / color / f"{size}.png")
    model = Eva02Config(
        image_size=(16, 16), patch_px=8, width=16, depth=2, num_heads=1, hidden_dim=24, embed_dim=0, pooling="mean"
    )
    return ClassifyConfig(
        name="tiny", model=model, data=DataConfig(path=str(tmp_path)), val_frac=0.0, batch_size=6, seed=4
    )


def _batch(config: ClassifyConfig, step: int, world: World | None = None) -> Batch:
    batches = Loader(Classify.open_rows(config, world or World()))
    try:
        return batches.batch(step)
    finally:
        batches.close()


def test_a_view_is_a_function_of_seed_step_and_row(config: ClassifyConfig) -> None:
    found = _batch(config, 3)
    root = Path(config.data.path)
    for row, key in enumerate(found.keys):
        rng = random.Random(f"view/4/3/{row}")
        wanted = class_view(root / key, config.views, (16, 16), rng)
        assert torch.equal(found.pixels[row], wanted)
    assert found.labels is not None
    assert [("blue", "green", "red")[label] for label in found.labels] == [key.split("/")[0] for key in found.keys]
    assert not torch.equal(found.pixels, _batch(replace(config, seed=5), 3).pixels)


def test_steps_may_be_asked_for_in_any_order(config: ClassifyConfig) -> None:
    batches = Loader(Classify.open_rows(config, World()))
    forward = [batches.batch(step).pixels for step in range(4)]
    again = [batches.batch(step).pixels for step in (3, 0, 2, 1)]
    batches.close()
    for step, pixels in zip((3, 0, 2, 1), again, strict=True):
        assert torch.equal(pixels, forward[step])


@pytest.mark.parametrize("mix", [MixConfig(), MixConfig(mixup=0.8), MixConfig(cutmix=1.0)])
def test_the_rows_of_two_processes_are_those_of_one(config: ClassifyConfig, mix: MixConfig) -> None:
    config = replace(config, views=replace(config.views, mix=mix))
    for step in range(2):
        whole = _batch(config, step)
        parts = [_batch(config, step, World(rank=rank, size=2)) for rank in range(2)]
        for name in ("pixels", "labels", "rows", "indices"):
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts])), name
        assert (
            {*whole.extra} == {*parts[0].extra} == {*parts[1].extra} == ({"partners", "share"} if mix.is_on else set())
        )
        for name, value in whole.extra.items():
            assert torch.equal(value, torch.cat([part.extra[name] for part in parts])), name
        assert whole.keys == parts[0].keys + parts[1].keys


def test_mixed_images_have_the_label_of_the_mirrored_row(config: ClassifyConfig) -> None:
    views = ClassViewConfig(mix=MixConfig(mixup=0.8))
    plain, mixed = _batch(replace(config, views=ClassViewConfig()), 1), _batch(replace(config, views=views), 1)
    assert plain.labels is not None
    assert torch.equal(mixed.extra["partners"], plain.labels.flip(0))
    share = mixed.extra["share"][0].item()
    wanted = (plain.pixels.float() * share + plain.pixels.flip(0).float() * (1 - share)).round()
    assert torch.equal(mixed.pixels.float(), wanted)


def test_a_broken_image_is_left_out_and_many_stop_the_run(config: ClassifyConfig) -> None:
    root = Path(config.data.path)
    (root / "red" / "0.png").write_bytes(b"no image")
    config_of_few = replace(config, data=replace(config.data, max_skipped_frac=0.5), batch_size=12)
    batches = Loader(Classify.open_rows(config_of_few, World()))
    found = batches.batch(0)
    batches.close()
    assert len(found.pixels) == len(found.keys) == 11
    assert [finding.key for finding in batches.rows.skipped] == ["red/0.png"]
    (root / "red" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="2 of 12 samples"):
        _batch(replace(config, batch_size=12), 0)


def test_settings_that_would_be_ignored_are_refused(config: ClassifyConfig) -> None:
    with pytest.raises(ConfigError, match="views"):
        replace(config, augment=AugmentConfig(scale=(0.5, 1.0)))
    with pytest.raises(ConfigError, match="decode_px"):
        replace(config, data=DataConfig(path="x", decode_px=100))
    with pytest.raises(ConfigError, match="num_classes"):
        _batch(replace(config, num_classes=5), 0)
    with pytest.raises(ConfigError, match="evenly"):
        _batch(config, 0, World(rank=0, size=4))
    assert replace(config, optim=OptimConfig(name="lion")).reads_texts is False
