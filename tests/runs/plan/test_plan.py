from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from eyesmith.errors import ConfigError
from eyesmith.losses.config import DistillConfig
from eyesmith.models.registry import encoder_config
from eyesmith.recipes import recipe
from eyesmith.runs.plan import Cluster, Plan, plan
from eyesmith.tasks.caption import CaptionTaskConfig
from eyesmith.tasks.contrastive import Contrastive, TrainConfig
from eyesmith.tasks.masked import MaskedConfig

A100 = 312.0


def parts(made: Plan) -> dict[str, tuple[int, int]]:
    return {part.part: (part.trained, part.frozen) for part in made.parts}


@pytest.fixture(scope="module")
def short_s() -> Plan:
    return plan(recipe("vitamin-s-1280m"), Cluster(gpus=32, mfu=0.037, peak_tflops=A100))


def test_a_short_run_trains_both_towers_and_decays_matrices(short_s: Plan) -> None:
    assert parts(short_s) == {"image": (22_025_152, 0), "text": (40_444_032, 0), "temperature": (1, 0)}
    by_decay = {(group.part, group.weight_decay): group.num_parameters for group in short_s.groups}
    assert set(by_decay) == {("image", 0.2), ("image", 0.0), ("text", 0.2), ("text", 0.0), ("temperature", 0.0)}
    # not decayed in the text tower: 4 norms' and 4 products' vectors a block (13 widths), and the last norm
    assert by_decay["text", 0.0] == 12 * 13 * 384 + 2 * 384
    assert all(group.lr_scale == 1 for group in short_s.groups)


def test_steps_and_rates(short_s: Plan) -> None:
    assert (short_s.steps, short_s.samples_seen, short_s.gpu_batch) == (156_250, 1_280_000_000, 256)
    assert [rate.step for rate in short_s.rates][:2] == [0, 17_361]
    assert len(short_s.rates) == 10
    assert short_s.rates[0].lr == pytest.approx(5e-4 / 500)
    assert short_s.rates[-1].step == 156_249
    assert short_s.rates[-1].lr < 1e-12


def test_operations_are_three_forward_passes(short_s: Plan) -> None:
    assert short_s.image_flops == pytest.approx(3 * 2 * 5.89e9, rel=1e-3)
    assert short_s.text_flops == pytest.approx(3 * 2 * 1.69e9, rel=4e-3)
    assert short_s.total_flops == pytest.approx(1.28e9 * (short_s.image_flops + (short_s.text_flops or 0)))


@pytest.mark.parametrize(
    ("name", "gpus", "mfu", "days"),
    # table 2: training days on A100s, at the share of the peak that these days stand for
    [("vitamin-s-1280m", 32, 0.037, 1.8), ("vitamin-b-1280m", 32, 0.069, 3.3), ("vitamin-l-1280m", 32, 0.13, 5.6)],
)
def test_gpu_hours_are_those_of_the_paper_at_its_utilisation(name: str, gpus: int, mfu: float, days: float) -> None:
    made = plan(recipe(name), Cluster(gpus=gpus, mfu=mfu, peak_tflops=A100))
    assert made.hours / 24 == pytest.approx(days, rel=0.04)
    assert made.gpu_hours == pytest.approx(made.hours * gpus)
    assert made.samples_per_s * made.hours * 3600 == pytest.approx(made.samples_seen)


def test_locked_text_trains_no_text_parameter_and_encodes_each_text_once() -> None:
    run = recipe("vitamin-s-ltt-128m")
    made = plan(replace(run, epochs=3))
    assert parts(made) == {"image": (22_172_608, 0), "text": (0, 123_650_304), "temperature": (1, 0)}
    assert made.text_flops == pytest.approx(2 * 6.65e9, rel=2e-3)  # forward alone
    assert made.text_flops is not None
    assert made.total_flops == pytest.approx(
        made.samples_seen * made.image_flops + run.data.epoch_samples * made.text_flops
    )
    memory = {part.part: part.num_bytes for part in made.memory}
    assert "text activations" not in memory
    assert memory["gradients"] == 4 * 22_172_609


def test_nothing_is_decayed_at_larger_images() -> None:
    made = plan(recipe("vitamin-l-256"))
    assert sum(part.decayed for part in made.parts) == 0
    assert {rate.lr for rate in made.rates} == {1e-5}


def test_a_batch_that_the_gpus_cannot_share_is_planned_as_the_nearest_and_said() -> None:
    made = plan(replace(recipe("vitamin-s-128m"), batch_size=90_270, accumulate=3), Cluster(gpus=8))
    assert (made.batch_size, made.accumulate) == (90_264, 3)
    assert any("90,270" in note and "batch_size=90264" in note for note in made.notes)


def test_frozen_patterns_and_factors_show() -> None:
    run = recipe("finetune")
    made = plan(
        replace(run, data=replace(run.data, epoch_samples=10_000), optim=replace(run.optim, freeze=("text.*",)))
    )
    assert parts(made)["text"] == (0, 40_444_032)
    factors = {group.lr_scale for group in made.groups if group.part == "image"}
    assert max(factors) == 1.0
    assert min(factors) == pytest.approx(0.8**23)  # 22 blocks, and what comes after them
    with pytest.raises(ConfigError, match="optim.freeze"):
        plan(replace(run, data=replace(run.data, epoch_samples=10_000), optim=replace(run.optim, freeze=("txt.*",))))


def test_sharding_and_accumulation_need_less_memory() -> None:
    run = recipe("vitamin-s-128m")
    one = plan(run, Cluster(gpus=8))
    sharded = plan(replace(run, parallel=replace(run.parallel, strategy="fsdp")), Cluster(gpus=8))
    smaller = plan(replace(run, accumulate=4), Cluster(gpus=8))
    kept = plan(replace(run, parallel=replace(run.parallel, checkpoint_blocks=False)), Cluster(gpus=8))
    get = lambda made, part: {one.part: one.num_bytes for one in made.memory}[part]  # noqa: E731
    assert get(one, "optimizer") == 8 * (22_025_152 + 40_444_032 + 1)
    assert get(sharded, "optimizer") == get(one, "optimizer") // 8
    assert get(smaller, "image activations") * 4 == get(one, "image activations")
    assert get(kept, "image activations") > 3 * get(one, "image activations")
    assert one.memory_bytes < kept.memory_bytes
    assert not plan(run, Cluster(gpus=1, gpu_memory_gib=24)).fits


def test_the_loss_is_flat() -> None:
    run = recipe("vitamin-s-128m")
    assert Contrastive.loss_bytes(run, 8) < 100 * 2**20 < 4 * 8192**2
    wider = replace(run, batch_size=8 * run.batch_size)
    more_texts = 7 * run.batch_size * run.model.image.embed_dim
    assert (
        Contrastive.loss_bytes(wider, 64) - Contrastive.loss_bytes(run, 8) == 2 * 4 * more_texts
    )  # a tile is as large as it gets
    few = replace(run, batch_size=512)
    assert Contrastive.loss_bytes(few, 1) == 4 * 4 * 512 * (512 + run.model.image.embed_dim)


def test_the_length_of_a_run_on_own_pairs_comes_from_the_data(tmp_path: Path) -> None:
    run = recipe("debug")
    missing = replace(run, data=replace(run.data, path=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="data.epoch_samples"):
        plan(missing)
    lines = ["image,caption"]
    for number in range(6):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,picture {number}")
    (tmp_path / "pairs.csv").write_text("\n".join(lines))
    data = replace(run.data, path=str(tmp_path / "pairs.csv"), split=None)
    made = plan(replace(run, data=data, batch_size=2, epochs=4), Cluster(gpus=1))
    assert (made.samples_per_epoch, made.steps, made.strategy) == (6, 12, "none")


@pytest.mark.parametrize("field", ["gpus=0", "mfu=0.0", "mfu=1.5", "peak_tflops=0.0", "gpu_memory_gib=-1.0"])
def test_a_cluster_that_makes_no_sense_is_refused(field: str) -> None:
    name, value = field.split("=")
    with pytest.raises(ConfigError, match=rf"^plan\.{name}: expected .*, got {value}$"):
        Cluster(**{name: type(getattr(Cluster(), name))(float(value))})


def test_a_plan_is_plain_json(short_s: Plan) -> None:
    content = short_s.as_dict()
    assert content["fits"] is True
    assert content["memory_bytes"] == sum(part["num_bytes"] for part in content["memory"])


def test_planning_changes_nothing_in_the_config(short_s: Plan) -> None:
    run: TrainConfig = recipe("vitamin-s-1280m")
    assert short_s.model == run.model.name


def masked_run(**target: object) -> MaskedConfig:
    config = recipe("eva02-mim-b")
    assert isinstance(config, MaskedConfig)
    return replace(config, target=replace(config.target, **target))  # pyright: ignore


def test_a_masked_run_counts_its_teacher() -> None:
    made = plan(masked_run(), Cluster(gpus=16))
    # EVA-01-CLIP g/14: a patch embedding, a class token, positions, 40 blocks without a bias of k, a norm, a projection
    block = 4 * 1408**2 + 3 * 1408 + 2 * 1408 * 6144 + 6144 + 1408 + 4 * 1408
    count = 588 * 1408 + 1408 + 1408 + 257 * 1408 + 40 * block + 2 * 1408 + 1408 * 1024 + 1024
    assert parts(made)["teacher"] == (0, count)
    products = 4 * 1408**2 + 2 * 1408 * 6144
    attention = 2 * 257 * 1408  # of a token with all others, scores and sums
    macs = 256 * 588 * 1408 + 40 * 257 * (products + attention) + 256 * 1408 * 1024
    assert made.teacher_flops == pytest.approx(2 * macs, rel=1e-3)
    assert made.total_flops == pytest.approx(made.samples_seen * (made.image_flops + made.teacher_flops))
    memory = {part.part: part.num_bytes for part in made.memory}
    assert memory["teacher weights"] == 4 * count
    # at least the input, the hidden layer and the output of a block, for the images of a GPU
    assert memory["teacher activations"] > 128 * 257 * (2 * 4 * 1408 + 2 * 2 * 6144)
    assert made.as_dict()["teacher_flops"] == made.teacher_flops


def test_kept_targets_cost_one_pass_and_no_memory() -> None:
    run = masked_run(cache=False)
    plain = replace(run, transform=None)
    kept = replace(plain, target=replace(run.target, cache=True))
    made, streamed = plan(kept), plan(plain)
    assert made.teacher_flops == streamed.teacher_flops
    assert made.teacher_flops is not None
    once = made.samples_per_epoch * made.teacher_flops
    assert made.total_flops == pytest.approx(made.samples_seen * made.image_flops + once)
    assert not {part.part for part in made.memory} & {"teacher weights", "teacher activations"}
    assert any("once, before the training" in note for note in made.notes)


def test_a_teacher_of_another_size_or_unknown() -> None:
    given = encoder_config("vitamin_small_224")
    at_grid = plan(masked_run(dim=0), teacher=given)
    assert at_grid.teacher_flops == pytest.approx(
        (256 / 196) * (plan(masked_run(dim=0, match="features"), teacher=given).teacher_flops or 0), rel=0.05
    )
    unknown = plan(masked_run(teacher="runs/mine"))
    assert unknown.teacher_flops is None
    assert any("runs/mine is not here, and its name is no known model's" in note for note in unknown.notes)
    pixels = recipe("eva02-simmim-b")
    assert plan(pixels).teacher_flops is None
    assert not any("teacher" in note for note in plan(pixels).notes)


def test_what_is_not_counted_is_said() -> None:
    pairs = recipe("vitamin-s-1280m")
    assert isinstance(pairs, TrainConfig)
    distilled = replace(pairs, loss=replace(pairs.loss, distill=DistillConfig(teacher="runs/big", logit=1.0)))
    assert not any("not counted" in note for note in plan(pairs).notes)
    assert any("loss.distill.teacher, and its memory, are not counted" in note for note in plan(distilled).notes)
    told = CaptionTaskConfig(**{name: getattr(pairs, name) for name in TrainConfig.__dataclass_fields__})
    assert any("of the decoder" in note for note in plan(told).notes)
    student = recipe("distill")
    student = replace(student, data=replace(student.data, epoch_samples=1000))
    assert any("the teachers' forward passes" in note for note in plan(student).notes)
