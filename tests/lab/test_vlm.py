"""`lab vlm`: paired differences of answers; `vlm-fit`: scores that know a good eye from a bad one."""

import json
import shutil
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from eyesmith.cli.main import main
from eyesmith.data.make.scenes import make_scenes
from eyesmith.data.sources import open_source
from eyesmith.errors import ConfigError, DataError
from eyesmith.hub import load_encoder, save_model
from eyesmith.lab.vlm import BLIND, Answers, compare, run_vlm
from eyesmith.lab.vlm_fit import (
    EyeFit,
    alignment,
    caption_distances,
    correlations,
    correspondence,
    gromov_wasserstein,
    least_squares,
)
from eyesmith.lab.vlm_page import vlm_sentence, vlm_table, write_vlm_page
from eyesmith.models.identity import weights_hash
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.recipes import recipe
from eyesmith.runs.origin import Origin
from eyesmith.runs.work import RunSummary
from eyesmith.tasks.chat import ChatConfig
from eyesmith.train.config import EvalConfig


def _write(folder: Path, right: list[tuple[str, int, bool]]) -> None:
    folder.mkdir(parents=True)
    lines = [
        {"kind": kind, "picture": picture, "is_right": is_right, "wrong_image": is_wrong}
        for is_wrong in (False, True)
        for kind, picture, is_right in right
    ]
    (folder / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two kinds, 40 pictures; `good` is right in 3 of 4 and 1 of 2, `bad` in two colours less, blind in none."""
    pictures = range(40)
    for seed in (0, 1):
        for name, also_wrong in (("good", ()), ("bad", (1, 2)), (BLIND, pictures)):
            asked = [("color", one, one % 4 != 0 and one not in also_wrong) for one in pictures]
            asked += [("count", one, one % 2 == 0 and name != BLIND) for one in pictures]
            _write(tmp_path / name / f"seed-{seed}", asked)
    return tmp_path


def test_the_macro_mean_and_its_differences_are_paired(runs: Path, tmp_path: Path) -> None:
    found = compare(("bad", "good"), runs, (0, 1))
    good, bad = found.eyes
    assert (good.name, bad.name) == ("good", "bad")
    assert good.kinds == {"color": 0.75, "count": 0.5}
    assert good.macro == pytest.approx(0.625)
    assert good.gain[0] == pytest.approx(0.625)
    assert bad.kinds["color"] == pytest.approx(28 / 40)
    assert bad.behind[0] == pytest.approx(0.025)
    assert good.behind == (0.0, 0.0, 0.0)
    # paired, the two differ in 2 of 40 colours, which are half of the macro mean: a binomial share, halved
    drawn = {name: Answers(runs / name / "seed-0").drawn() for name in ("good", "bad")}
    assert np.std(drawn["good"] - drawn["bad"]) == pytest.approx(np.sqrt(0.05 * 0.95 / 40) / 2, rel=0.05)
    assert bad.behind[1] <= 0.025 <= bad.behind[2]
    columns, rows = vlm_table(found)
    assert [row[0] for row in rows] == ["good", "bad", "blind"]
    assert all(len(row) == len(columns) for row in rows)
    assert vlm_sentence(found).startswith("good leads bad by +2.5")
    page = write_vlm_page(found, tmp_path / "vlm.html").read_text()
    assert "good" in page
    assert "<script" not in page


def test_runs_that_were_asked_other_questions_are_not_compared(runs: Path) -> None:
    asked = [("color", one, True) for one in range(30)] + [("count", one, True) for one in range(30)]
    (runs / "bad" / "seed-1" / "answers.jsonl").unlink()
    (runs / "bad" / "seed-1").rmdir()
    _write(runs / "bad" / "seed-1", asked)
    with pytest.raises(DataError, match="seed-1: was asked other questions than .*good"):
        compare(("good", "bad"), runs, (0, 1))


def test_an_eye_called_blind_or_alone_is_refused(tmp_path: Path) -> None:
    base = recipe("chat-scenes")
    assert isinstance(base, ChatConfig)
    with pytest.raises(ConfigError, match="at least two eyes"):
        run_vlm({"a": "x"}, base, tmp_path, (0,))
    with pytest.raises(ConfigError, match="no eye can be called blind"):
        run_vlm({"a": "x", BLIND: "y"}, base, tmp_path, (0,))
    with pytest.raises(ConfigError, match="seeds: expected each once, got 0, 1, 0"):
        run_vlm({"a": "x", "b": "y"}, base, tmp_path, (0, 1, 0))


def test_a_finished_run_with_another_eye_than_lies_there_now_is_not_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 1), num_heads=2, embed_dim=0)
    for name in "ab":
        torch.manual_seed(ord(name))
        save_model(tmp_path / name, small.build())
    eyes = {name: str(tmp_path / name) for name in "ab"}
    seen, made_of = list[str](), "some"

    def finished(config: ChatConfig, folder: Path, **_: object) -> RunSummary:
        seen.append(folder.parent.name)
        if not folder.exists():
            save_model(folder, small.build(), config={})
            content = json.loads((folder / "config.json").read_text())
            content["model"] |= {"eye_hash": weights_hash(load_encoder(config.initial.weights))}
            (folder / "config.json").write_text(json.dumps(content))
            _write(folder / "answers", [("color", 0, True)])
            (folder / "answers" / "answers.jsonl").rename(folder / "answers.jsonl")
            Origin(train={}, data={"fingerprint": made_of}, frozen="", initial="", teachers={}).write(folder)
            return RunSummary(folder=folder, train_s=0.0, rows=[])
        return RunSummary(folder=folder, train_s=0.0, rows=[], was_finished=True)

    monkeypatch.setattr("eyesmith.lab.vlm.start_or_resume", finished)
    base = recipe("chat-scenes")
    assert isinstance(base, ChatConfig)
    base = replace(base, eval=EvalConfig(splits=("test",)))
    first = run_vlm(eyes, base, tmp_path / "out", (0,))
    assert run_vlm(eyes, base, tmp_path / "out", (0,)) == first
    assert seen == ["a", "b", BLIND] * 2
    shutil.rmtree(tmp_path / "out" / "b")
    made_of = "others"  # the data were made anew before the second eye was trained again
    with pytest.raises(DataError, match=r"b/seed-0: learned from other data than .*a/seed-0"):
        run_vlm(eyes, base, tmp_path / "out", (0,))
    shutil.rmtree(tmp_path / "b")
    save_model(tmp_path / "b", small.build())  # trained anew at the same place
    with pytest.raises(DataError, match=r"b/seed-0: was trained with another eye than .*b holds now"):
        run_vlm(eyes, base, tmp_path / "out", (0,))
    fits = [EyeFit(name=name, probe=0.5, correspondence=0.5, distance=0.5) for name in "ab"]
    assert correlations(fits, tmp_path / "out")["probe"] is None
    with pytest.raises(DataError, match=r"b/seed-0: was trained with another eye than .*b holds now"):
        correlations(fits, tmp_path / "out", eyes=eyes)


def test_distances_between_equal_geometries_are_nought() -> None:
    torch.manual_seed(0)
    points = torch.randn(20, 3)
    turned = points @ torch.linalg.qr(torch.randn(3, 3))[0]
    one, same, other = (torch.cdist(some, some).double().numpy() for some in (points, turned, torch.randn(20, 3)))
    assert gromov_wasserstein(one, same) == pytest.approx(0, abs=1e-9)
    assert gromov_wasserstein(one, other) > 0.01


def test_captions_with_the_same_words_are_near() -> None:
    found = caption_distances(["a red cat", "cat red a", "a red dog", "two blue dogs"], "words")
    assert found[0, 1] == pytest.approx(0, abs=1e-12)
    assert 0.2 < found[0, 2] < found[0, 3]
    with pytest.raises(ConfigError, match="lm: expected words"):
        caption_distances(["a"], "nothing")


def test_an_eye_that_knows_things_finds_them_again(tmp_path: Path) -> None:
    make_scenes(tmp_path / "scenes", samples=8, size_px=32)
    source = open_source(str(tmp_path / "scenes"), split="test")
    count, grid = 120, (8, 8)
    names = sorted({thing["name"] for index in range(count) for thing in source[index].meta["objects"]})
    rng = np.random.default_rng(0)
    knows = torch.from_numpy(rng.normal(size=(count, 64, 32))).float() * 0.01
    codes = torch.from_numpy(rng.normal(size=(len(names), 32))).float()
    for index in range(count):
        for thing in source[index].meta["objects"]:
            cell = min(int(thing["y"] * 8), 7) * 8 + min(int(thing["x"] * 8), 7)
            knows[index, cell] = codes[names.index(thing["name"])]
    blind: Tensor = torch.from_numpy(rng.normal(size=(count, 64, 32))).float()
    assert correspondence(knows, grid, source, count) == 1.0
    assert correspondence(blind, grid, source, count) < 0.4


def test_alignment_is_the_nearest_cosine_of_a_loop_and_a_linear_map_is_undone() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(3, 4, 5), torch.randn(3, 6, 5)
    slow = [
        max(float(torch.cosine_similarity(one[n, u], other[n, v], dim=0)) for v in range(6))
        for n in range(3)
        for u in range(4)
    ]
    assert alignment(one, other) == pytest.approx(sum(slow) / len(slow), abs=1e-6)
    assert alignment(one, one) == pytest.approx(1)
    tokens, more = torch.randn(50, 4, 5), torch.randn(7, 4, 5)
    turn, shift = torch.randn(5, 3), torch.randn(3)
    mapped = least_squares(tokens, tokens @ turn + shift, more)
    torch.testing.assert_close(mapped, more @ turn + shift, atol=2e-3, rtol=2e-3)


def test_ranks_are_compared_with_the_runs(runs: Path) -> None:
    fits = [
        EyeFit(name="good", probe=0.9, correspondence=0.2, distance=0.1),
        EyeFit(name="bad", probe=0.5, correspondence=0.4, distance=0.3),
    ]
    found = correlations(fits, runs)
    assert {name: pair and pair[0] for name, pair in found.items()} == {
        "probe": pytest.approx(1),
        "correspondence": pytest.approx(-1),
        "distance": pytest.approx(1),
    }
    alike = [
        EyeFit(name=name, probe=0.5, correspondence=0, distance=place) for place, name in enumerate(("good", "bad"))
    ]
    found = correlations(alike, runs)
    assert found["probe"] is None
    assert found["correspondence"] is None
    assert found["distance"] is not None
    with pytest.raises(DataError, match="no run of the eye other"):
        correlations([EyeFit(name="other", probe=0, correspondence=0, distance=0)], runs)


@pytest.mark.parametrize("verb", ["vlm", "vlm-fit"])
def test_the_options_as_they_stand_pass_their_own_check(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["lab", verb, str(tmp_path / "a"), str(tmp_path / "b"), "--data", str(tmp_path / "none")]
    assert main(words) != 0
    assert "grid" not in capsys.readouterr().err


@pytest.mark.slow
def test_two_eyes_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_scenes(tmp_path / "scenes", samples=32, size_px=32)
    for name in "ab":
        torch.manual_seed(ord(name))
        eye = ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=0)
        save_model(tmp_path / name, eye.build())
    eyes = [str(tmp_path / "a"), f"second={tmp_path / 'b'}"]
    words = ["lab", "vlm", *eyes, "--data", str(tmp_path / "scenes"), "--out", str(tmp_path / "vlm")]
    words += ["--seeds", "0", "--epochs", "1"]
    assert main(words) == 0
    first = capsys.readouterr().out
    assert "blind" in first
    assert "second" in first
    assert (tmp_path / "vlm" / "vlm.html").is_file()
    assert main(words) == 0
    assert capsys.readouterr().out == first, "what is there is not trained again"
    fit = ["lab", "vlm-fit", *eyes, "--data", str(tmp_path / "scenes"), "--results", str(tmp_path / "vlm")]
    fit += ["--reference", str(tmp_path / "a")]
    assert main(fit) == 0
    assert "Spearman" in capsys.readouterr().out


def test_p_of_few_eyes_is_the_share_of_their_orders(tmp_path: Path) -> None:
    rights = (1, 2, 3, 4)
    for name, right in zip("abcd", rights, strict=True):
        lines = [
            {"kind": "what", "picture": place, "is_right": place < right, "wrong_image": False} for place in range(5)
        ]
        folder = tmp_path / name / "seed-0"
        folder.mkdir(parents=True)
        (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, lines)))
    probes = (0.1, 0.3, 0.2, 0.9)
    fits = [
        EyeFit(name=name, probe=probe, correspondence=right, distance=0.0)
        for name, probe, right in zip("abcd", probes, rights, strict=True)
    ]
    for count in (2, 3, 4):
        found = correlations(fits[:count], tmp_path)
        for name, scores in (("probe", probes[:count]), ("correspondence", rights[:count])):
            pair = found[name]
            assert pair is not None
            rho = spearmanr(scores, rights[:count]).statistic
            every = [abs(spearmanr(scores, one).statistic) for one in permutations(rights[:count])]
            assert pair == (pytest.approx(rho), pytest.approx(np.mean(np.array(every) >= abs(rho) - 1e-9)))
