import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eyesmith.data.indexed import IndexedRows
from eyesmith.data.loader import Loader
from eyesmith.data.order import step_seed
from eyesmith.errors import ConfigError, DataError
from eyesmith.images import AugmentConfig, PreprocessConfig
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.data import open_rows
from eyesmith.train.distributed import World

SIZE = (32, 32)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Ten plain pictures of different greys, two captions each."""
    rows = ["image,caption"]
    for i in range(10):
        Image.new("RGB", (40, 40), (20 * i, 20 * i, 20 * i)).save(tmp_path / f"{i}.png")
        rows += [f"{i}.png,grey {i}", f"{i}.png,a grey of {20 * i}"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    return tmp_path / "pairs.csv"


def _config(path: Path, **data: object) -> TrainConfig:
    return TrainConfig(
        model=ClipConfig(
            name="tiny",
            image=ViTaminConfig(image_size=SIZE, widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=16),
            text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16),
            preprocess=PreprocessConfig(image_size=SIZE),
        ),
        data=DataConfig(path=str(path), decode_px=40, **data),
        augment=AugmentConfig(scale=(0.5, 1.0), brightness=0.1),
        batch_size=4,
    )


def _batches(config: TrainConfig, world: World | None = None) -> Loader:
    return Loader(open_rows(config, world))


def test_a_batch_is_a_function_of_seed_and_step(pairs: Path) -> None:
    config = _config(pairs)
    first, again = _batches(config), _batches(config)
    for step in range(4):
        first.batch(step)
    a, b = first.batch(5), again.batch(5)  # the other has not seen the steps before
    assert (a.keys, a.texts) == (b.keys, b.texts)
    assert torch.equal(a.pixels, b.pixels)
    other = _batches(replace(config, seed=1)).batch(5)
    assert (a.keys, a.texts) != (other.keys, other.texts)


def test_views_and_captions_of_a_sample_change_from_epoch_to_epoch(pairs: Path) -> None:
    batches = _batches(_config(pairs))
    seen: dict[str, set[str]] = {}
    for step in range(60):
        batch = batches.batch(step)
        for key, text in zip(batch.keys, batch.texts, strict=True):
            seen.setdefault(key, set()).add(text)
    assert len(seen) == 10
    assert all(len(texts) == 2 for texts in seen.values())


def test_each_caption_of_a_sample_is_drawn_equally_often(pairs: Path) -> None:
    """One of two, by seed, step and row alone: of 600 draws a half, within four deviations of a fair coin."""
    batches = _batches(_config(pairs))
    texts = [text for step in range(150) for text in batches.batch(step).texts]
    share = sum(text.startswith("a ") for text in texts) / len(texts)
    assert len(texts) == 600
    assert abs(share - 0.5) < 4 * 0.5 / 600**0.5


@pytest.mark.parametrize("memory_mib", [0, 16])
def test_pixels_and_captions_belong_together(pairs: Path, memory_mib: int) -> None:
    """Kept in memory or decoded at each use: sample i is grey 20 i, up to the brightness change of a tenth."""
    batches = _batches(_config(pairs, memory_mib=memory_mib))
    for step in range(3):
        batch = batches.batch(step)
        assert batch.pixels.shape == (4, 3, *SIZE)
        for pixels, text in zip(batch.pixels, batch.texts, strict=True):
            grey = int(text.rpartition(" ")[2]) * (1 if text.startswith("a ") else 20)
            assert pixels.float().mean() == pytest.approx(grey, rel=0.11, abs=2)


def test_both_ways_of_reading_give_the_same_batches(pairs: Path) -> None:
    kept, decoding = (_batches(_config(pairs, memory_mib=mib)) for mib in (16, 0))
    for step in range(3):
        a, b = kept.batch(step), decoding.batch(step)
        assert (a.keys, a.texts) == (b.keys, b.texts)
        torch.testing.assert_close(a.pixels.float(), b.pixels.float(), atol=1, rtol=0)


@pytest.mark.parametrize(("samples", "steps"), [(0, 2), (4, 1), (7, 1), (3, 1), (40, 10)])
def test_an_epoch_has_the_stated_number_of_samples(pairs: Path, samples: int, steps: int) -> None:
    """Ten pictures in batches of four; an epoch that is shorter than a batch is one."""
    assert _batches(_config(pairs, epoch_samples=samples)).steps_per_epoch == steps


def test_rows_say_how_they_decode(tmp_path: Path) -> None:
    """A JPEG that is made four times smaller: exactly where it is kept, fast where it is not, which is not the same."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    Image.fromarray(noise.repeat(16, axis=0).repeat(16, axis=1)).save(tmp_path / "0.jpg", quality=90)
    shutil.copy(tmp_path / "0.jpg", tmp_path / "1.jpg")
    (tmp_path / "pairs.csv").write_text("image,caption\n0.jpg,one\n1.jpg,other\n")
    found: dict[str, torch.Tensor] = {}
    for memory_mib in (0, 16):
        config = replace(_config(tmp_path / "pairs.csv", memory_mib=memory_mib), augment=AugmentConfig(), batch_size=2)
        rows = open_rows(config)
        assert isinstance(rows, IndexedRows)
        (_, pixels), *_ = rows.fixed_views(2)
        found[rows.decoding] = pixels[0].float()
        rows.close()
    assert found.keys() == {"exact", "fast"}
    assert not torch.equal(found["exact"], found["fast"])
    torch.testing.assert_close(found["exact"], found["fast"], atol=16, rtol=0)


@pytest.mark.parametrize("memory_mib", [0, 16])
def test_a_broken_image_is_skipped_and_counted(pairs: Path, memory_mib: int) -> None:
    (pairs.parent / "3.png").write_bytes(b"no picture")
    batches = _batches(_config(pairs, memory_mib=memory_mib, max_skipped_frac=0.5))
    keys = {key for step in range(6) for key in batches.batch(step).keys}
    assert len(keys) == 9
    assert [(finding.kind, finding.key) for finding in batches.rows.skipped] == [("undecodable", "3.png")]


@pytest.mark.parametrize("memory_mib", [0, 16])
def test_too_many_broken_images_stop_the_run(pairs: Path, memory_mib: int) -> None:
    for i in range(4):
        (pairs.parent / f"{i}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="cannot be used.*data check"):
        batches = _batches(_config(pairs, memory_mib=memory_mib))
        for step in range(4):
            batches.batch(step)


@pytest.mark.parametrize("memory_mib", [0, 16])
@pytest.mark.parametrize("broken", [False, True])
def test_the_rows_of_two_processes_are_those_of_one(pairs: Path, memory_mib: int, broken: bool) -> None:
    if broken:
        (pairs.parent / "3.png").write_bytes(b"no picture")
    config = _config(pairs, memory_mib=memory_mib, max_skipped_frac=0.5)
    one, two = _batches(config), [_batches(config, World(rank=rank, size=2)) for rank in range(2)]
    for step in range(4):
        whole, parts = one.batch(step), [batches.batch(step) for batches in two]
        assert whole.keys == parts[0].keys + parts[1].keys
        assert whole.texts == parts[0].texts + parts[1].texts
        assert torch.equal(whole.rows, torch.cat([part.rows for part in parts]))
        assert torch.equal(whole.pixels, torch.cat([part.pixels for part in parts]))


def test_processes_must_share_a_batch_evenly(pairs: Path) -> None:
    with pytest.raises(ConfigError, match="3 processes cannot share 4 pairs"):
        open_rows(_config(pairs), World(size=3))


def test_step_seeds_differ() -> None:
    assert len({step_seed(seed, step) for seed in range(20) for step in range(50)}) == 1000
