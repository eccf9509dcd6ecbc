import pytest

from eyesmith.data.stream import probe_shards
from eyesmith.errors import ImageError


def test_every_part_and_the_whole_have_a_rate(shards) -> None:
    found = probe_shards(str(shards(40, 30)), size_px=16, num_workers=1, batch_size=8, seconds=0.05)
    assert [stage.name for stage in found.stages] == ["read", "decode", "transform", "collate"]
    assert all(stage.images_per_s > 0 and stage.mib_per_s > 0 for stage in found.stages)
    assert sum(stage.time_frac for stage in found.stages) == pytest.approx(1)
    assert found.mean_px == (32, 40)
    assert found.num_samples == 64
    assert found.images_per_s > 0


def test_pictures_that_cannot_be_decoded_are_an_error(tmp_path, tar, pair) -> None:
    tar(tmp_path / "0.tar", [part for i in range(9) for part in pair(f"{i}", i, jpg=b"\xff\xd8\xff")])
    with pytest.raises(ImageError, match="none of the pictures tried can be decoded"):
        probe_shards(str(tmp_path), num_workers=1)
