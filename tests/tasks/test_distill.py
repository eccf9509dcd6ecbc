"""Task `distill`: its loss against slow loops, targets of one size, whole runs, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from eyesmith.data.loader import Batch
from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.sources import open_source
from eyesmith.errors import CheckpointError, ConfigError
from eyesmith.eval import read_rows
from eyesmith.hub import load_encoder, save_model, verify
from eyesmith.images.augment import AugmentConfig
from eyesmith.models.eva02.model import Eva02Config
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.runs.origin import Origin, check_teachers
from eyesmith.runs.train import resume, start
from eyesmith.runs.work import Work
from eyesmith.tasks.distill import (
    Distill,
    DistillTaskConfig,
    DistillTeacher,
    Said,
    Student,
    TeacherHeads,
    balance_of,
    pack_said,
    unpack_said,
)
from eyesmith.tasks.task import RunContext
from eyesmith.train.config import DataConfig, EvalConfig
from eyesmith.train.diagnostics import HealthConfig
from eyesmith.train.distributed import World

STUDENT = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 2), num_heads=2, embed_dim=0)
ONE = replace(STUDENT, widths=(8, 8, 16), image_size=(48, 48), embed_dim=24)
OTHER = Eva02Config(
    image_size=(32, 32), patch_px=8, width=16, depth=1, num_heads=2, hidden_dim=24, embed_dim=12, pooling="token"
)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Of two families, two image sizes, widths and ways to pool, with features of very different lengths."""
    folder = tmp_path_factory.mktemp("teachers")
    for seed, (name, made) in enumerate({"one": ONE, "other": OTHER}.items()):
        torch.manual_seed(seed)
        save_model(folder / name, made.build())
    return str(folder / "one"), str(folder / "other")


@pytest.fixture
def config(pairs: Path, teachers: tuple[str, str], tmp_path: Path, monkeypatch) -> DistillTaskConfig:
    monkeypatch.setenv("EYESMITH_CACHE", str(tmp_path / "cache"))
    return DistillTaskConfig(
        name="student",
        model=STUDENT,
        teachers=teachers,
        weights=(1.0, 0.5),
        dense_weight=2.0,
        data=DataConfig(path=str(pairs), decode_px=32),
        optim=OptimConfig(peak_lr=3e-3, ema_decay=0.5),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),
        batch_size=4,
        epochs=2,
        save_every_steps=3,
    )


def _batch(rows: int) -> Batch:
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (rows, 3, 32, 32), dtype=torch.uint8, generator=draws)
    keys = tuple(str(row) for row in range(rows))
    return Batch(pixels=pixels, texts=[], labels=None, keys=keys, rows=torch.arange(rows))


def test_the_loss_is_a_loop_over_teachers_parts_cells_and_channels(config: DistillTaskConfig) -> None:
    asked = [DistillTeacher(load_encoder(one), source=one, grid=(2, 2)) for one in config.teachers]
    assert [one.dims for one in asked] == [{"summary": 24, "dense": 16}, {"summary": 12, "dense": 16}]
    torch.manual_seed(3)
    student = Student(STUDENT.build(), [one.dims for one in asked])
    for heads in student.teachers:
        assert isinstance(heads, TeacherHeads)
        for name, dim in heads.dims.items():
            heads.give(name, torch.randn(dim), torch.rand(dim) + 0.5)
    task, batch = Distill(student.eval(), replace(config, cache=False), asked), _batch(3)
    with torch.no_grad():
        found, said = task.outputs(lambda pixels: student(pixels), batch)  # pyright: ignore
        terms = task.terms((found, said), batch)
    for row in range(3):
        expected = 0.0
        for place, weight in enumerate(config.weights):
            heads = student.teachers[place]
            summary, dense = 0.0, 0.0
            for channel, wanted in enumerate(said[place].summary[row].tolist()):
                unit, mean = (heads.get_buffer(f"summary_{name}")[channel].item() for name in ("unit", "mean"))
                summary += (found[place]["summary"][row, channel].item() - (wanted - mean) / unit) ** 2
            for cell in range(4):
                for channel in range(16):
                    unit, mean = (heads.get_buffer(f"dense_{name}")[channel].item() for name in ("unit", "mean"))
                    wanted = (said[place].dense[row, cell, channel].item() - mean) / unit
                    dense += (found[place]["dense"][row, cell, channel].item() - wanted) ** 2
            expected += weight * (summary / len(said[place].summary[row]) + 2.0 * dense / (4 * 16))
        assert terms[row].item() == pytest.approx(expected, rel=1e-4)
    encoder = load_encoder(config.teachers[1])
    with torch.no_grad():  # the teacher with a class token gives its own summary
        torch.testing.assert_close(said[1].summary, encoder(batch.pixels))


def test_targets_get_one_size_whatever_the_teachers_is() -> None:
    draws = torch.Generator().manual_seed(0)
    rows = 300 * torch.randn(500, 6, generator=draws) * torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 0.0]) + 40
    for balance in ("scale", "channel", "none"):
        mean, unit = balance_of(rows.split(64), balance)
        balanced = (rows - mean) / unit
        if balance == "none":
            assert torch.equal(balanced, rows)
            continue
        torch.testing.assert_close(balanced.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
        variances = balanced.var(0, correction=0)
        if balance == "scale":
            assert float(variances.mean()) == pytest.approx(1, rel=1e-4)
            torch.testing.assert_close(variances / variances[0], rows.var(0) / rows.var(0)[0], rtol=1e-3, atol=1e-5)
        else:
            torch.testing.assert_close(variances, torch.tensor([1.0, 1, 1, 1, 1, 0]), rtol=1e-3, atol=1e-4)


def test_a_squared_error_is_blind_to_the_rotation_of_phi_s() -> None:
    draws = torch.Generator().manual_seed(1)
    rows = torch.randn(400, 4, generator=draws).double() @ torch.randn(4, 4, generator=draws).double()
    mean, unit = (value.double() for value in balance_of([rows], "scale"))
    values, vectors = torch.linalg.eigh(torch.cov((rows - mean).T, correction=0))
    hadamard = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]).double() / 2
    turn = hadamard @ vectors.T / values.mean().sqrt()
    standard = (rows - mean) @ turn.T
    torch.testing.assert_close(standard.var(0, correction=0), torch.ones(4).double(), rtol=1e-5, atol=1e-5)
    guess = torch.randn(400, 4, generator=draws).double()
    ours = ((guess - (rows - mean) / unit) ** 2).mean(1)
    torch.testing.assert_close(((guess @ turn.T * unit[0] - standard) ** 2).mean(1), ours, rtol=1e-5, atol=1e-5)


def test_what_is_kept_is_what_was_said() -> None:
    summary, dense = torch.randn(2, 5), torch.randn(2, 4, 3)
    packed = pack_said(Said(summary, dense))
    assert packed.shape == (2, 5, 5)
    back = unpack_said(packed, {"summary": 5, "dense": 3})
    assert torch.equal(back.summary, summary)
    assert torch.equal(back.dense, dense)


def test_a_run_resumes_to_the_bit_and_leaves_a_plain_encoder(
    config: DistillTaskConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(config, epochs=1)
    start(config, tmp_path / "whole")
    steps = [line for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines() if '"loss"' in line]
    assert steps
    kept = {path.name for path in (tmp_path / "whole" / "state").iterdir()}
    assert kept

    def broken(_: Work) -> None:
        raise RuntimeError("stopped here")

    with monkeypatch.context() as patched:
        patched.setattr(Work, "_leave_model", broken)  # after the last step, before the model is written
        with pytest.raises(RuntimeError, match="stopped here"):
            start(config, tmp_path / "stopped")
    newest = max((tmp_path / "stopped" / "state").iterdir())
    newest.unlink()  # as if it was killed earlier
    resume(tmp_path / "stopped")
    for name in ("model.safetensors", "distill.safetensors"):
        ours, theirs = (load_file(tmp_path / run / name) for run in ("whole", "stopped"))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name
    assert load_encoder(tmp_path / "whole").config == STUDENT
    assert verify(tmp_path / "whole").ok


def test_both_teachers_are_explained_better_than_by_their_means(config: DistillTaskConfig, tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", samples=160, size_px=32)
    data = DataConfig(path=str(tmp_path / "scenes"), split="train", decode_px=32)
    optim = OptimConfig(peak_lr=3e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01, warmup_frac=0.1)
    learns = replace(config, data=data, optim=optim, eval=EvalConfig(splits=("test",)), batch_size=16, epochs=20)
    learns = replace(learns, weights=(), dense_weight=1.0, save_every_steps=1000)
    start(learns, tmp_path / "run")
    rows = read_rows(tmp_path / "run" / "results.jsonl")
    assert {row.split for row in rows} == {
        f"test:{name}:{part}" for name in ("one", "other") for part in ("summary", "dense")
    }
    assert all(row.metric == "explained" and 0.1 < row.value < 1 for row in rows), rows


@pytest.mark.parametrize("cache", [True, False])
def test_what_is_explained_is_a_share_whatever_the_targets_are_balanced_by(
    config: DistillTaskConfig, tmp_path: Path, cache: bool
) -> None:
    """A student that says the mean of what its teachers say of the pictures explains nothing of them."""
    for balance in ("scale", "none"):
        one = replace(config, balance=balance, cache=cache, weights=())
        rows = Distill.open_rows(one, World())
        task = Distill.build(one, rows, RunContext(folder=tmp_path, world=World(), console=Console(quiet=True)))
        shown = [some for _, some in rows.fixed_views(24)]
        rows.close()
        student = task.model.eval()
        for heads, teacher in zip(student.teachers, task.asked, strict=True):
            said = [teacher(some) for some in shown]
            means = {
                "summary": torch.cat([part.summary for part in said]).mean(0),
                "dense": torch.cat([part.dense for part in said]).flatten(0, 1).mean(0),
            }
            for name, head in heads.heads.items():
                last = head[-1]
                torch.nn.init.zeros_(last.weight)
                with torch.no_grad():
                    last.bias.copy_(heads.balanced(name, means[name]))
        values, _ = task.explained(student, open_source(config.data.path), World())
        assert all(abs(value) < 0.02 for value in values.values()), (balance, values)


def test_two_teachers_of_one_name_keep_their_own_numbers(config: DistillTaskConfig, tmp_path: Path) -> None:
    for place, made in (("a", ONE), ("b", OTHER)):
        save_model(tmp_path / place / "model", made.build())
    sources = [str(tmp_path / place / "model") for place in "ab"]
    asked = [DistillTeacher(load_encoder(one), source=one, grid=(2, 2)) for one in sources]
    assert asked[0].name == asked[1].name
    student = Student(STUDENT.build(), [one.dims for one in asked])
    task = Distill(student.eval(), replace(config, cache=False, teachers=tuple(sources)), asked)
    values, _ = task.explained(student, open_source(config.data.path), World())
    assert [teacher for teacher, _ in values] == [sources[0], sources[0], sources[1], sources[1]]
    assert len(set(values.values())) == 4
    assert len(task.fixed()) == 2


def test_without_a_cache_views_may_change(config: DistillTaskConfig, tmp_path: Path) -> None:
    augment = AugmentConfig(scale=(0.6, 1.0))
    with pytest.raises(ConfigError, match="cache=false"):
        replace(config, augment=augment)
    start(replace(config, augment=augment, cache=False, epochs=1), tmp_path / "run")
    assert verify(tmp_path / "run").ok


def test_wrong_settings_and_changed_teachers_are_said(config: DistillTaskConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected one or more models to learn from"):
        start(replace(config, teachers=(), weights=()), tmp_path / "none")
    with pytest.raises(ConfigError, match="a positive number for each of 2 teachers"):
        replace(config, weights=(1.0,))
    with pytest.raises(ConfigError, match="one of them above"):
        replace(config, dense_weight=0.0, summary_weight=0.0)
    for unheard in (EvalConfig(curve_data=("other",)), EvalConfig(suites=("retrieval",), suite_data="sets")):
        with pytest.raises(ConfigError, match=r"eval\.(curve_data|suites): .*leave it out"):
            replace(config, eval=unheard)
    with pytest.raises(ConfigError, match="expected each once"):
        replace(config, teachers=(config.teachers[0],) * 2)
    origin = Origin(train={}, data={}, frozen="", initial="", teachers={"teachers.1": "x"})
    with pytest.raises(CheckpointError, match=r"\(teachers\.1\), which is gone"):
        check_teachers(origin, replace(config, teachers=(config.teachers[0], str(tmp_path / "gone"))), tmp_path)
