"""A user's encoder file: registered, built, kept with a run, and refused in words."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import eyesmith
from eyesmith.config import from_dict, to_dict
from eyesmith.errors import ConfigError
from eyesmith.hub import load_model, save_model
from eyesmith.models import check_encoder, create_encoder, encoder_config, list_encoders, own
from eyesmith.models.clip import ClipConfig
from eyesmith.models.cost import encoder_cost
from eyesmith.models.own import OwnEncoderConfig, own_config, own_encoders
from eyesmith.models.registry import config as pair_config

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "patch_mixer.py"
EXAMPLE_PICO_PARAMS = 3 * 256 * 232 + 232 + 2 * 232 + 8 * (4 * 232 + 10 * 232 + 232 * 233)  # patch, norm, 8 mixers


def written(folder: Path, content: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_the_example_is_an_encoder_of_about_forty_lines() -> None:
    assert eyesmith.register_encoder(EXAMPLE) == "patch_mixer"
    encoder = create_encoder("patch_mixer:pico", image_size=32, embed_dim=24)
    check_encoder(encoder)
    assert encoder(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    lines = [line for line in EXAMPLE.read_text("utf-8").splitlines() if line.strip()]
    assert len(lines) <= 50
    bare = create_encoder("patch_mixer:pico")
    assert bare.embed_dim == 232
    assert sum(parameter.numel() for parameter in bare.parameters()) == EXAMPLE_PICO_PARAMS


def test_registered_names_are_listed_and_counted() -> None:
    assert "patch_mixer:nano" not in list_encoders()
    eyesmith.register_encoder(EXAMPLE)
    assert {"patch_mixer:nano", "patch_mixer:pico"} <= set(list_encoders())
    config = encoder_config("patch_mixer:pico")
    assert isinstance(config, OwnEncoderConfig)
    assert encoder_cost(config).tower.params == EXAMPLE_PICO_PARAMS
    with pytest.raises(ConfigError, match="did you mean patch_mixer:"):
        encoder_config("patch_mixer:nan")
    with pytest.raises(ConfigError, match="no 'huge'; known: pico, nano"):
        own_config("patch_mixer", "huge")
    with pytest.raises(ConfigError, match="--encoder FILE"):
        own_config("other", "nano")


def pair(size: int = 32) -> ClipConfig:
    base = pair_config("ViTamin-Nano")
    image = own_config("patch_mixer", "pico", image_size=(size, size), embed_dim=base.image.embed_dim)
    pixels = replace(base.preprocess, image_size=(size, size), mean=image.mean, std=image.std)
    return replace(base, name="mine", image=image, preprocess=pixels)


def test_a_config_goes_through_json() -> None:
    eyesmith.register_encoder(EXAMPLE)
    config = pair()
    written = to_dict(config)
    assert written["image"]["kind"] == "OwnEncoderConfig"
    assert "/" not in written["image"]["file"]  # no machine's path enters a run
    assert from_dict(ClipConfig, written) == config


def test_a_run_folder_keeps_the_file_and_runs_nothing_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "patch_mixer.py"
    shutil.copy(EXAMPLE, file)
    eyesmith.register_encoder(file)
    clip = pair().build().eval()
    file.unlink()  # what was registered is kept, not what is there
    save_model(tmp_path / "run", clip)
    kept = tmp_path / "run" / "encoder" / "patch_mixer.py"
    assert kept.read_bytes() == EXAMPLE.read_bytes()
    pixels = torch.randn(2, 3, 32, 32)
    again = load_model(tmp_path / "run")
    assert isinstance(again, eyesmith.Clip)
    torch.testing.assert_close(again.encode_image(pixels), clip.encode_image(pixels), rtol=0, atol=0)

    own._BY_NAME.clear()  # a new process
    own._BY_HASH.clear()
    kept.write_text(kept.read_text("utf-8") + f"\nimport os; os.mkdir({str(tmp_path / 'ran')!r})\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"was not registered.*register_encoder\('.*encoder/patch_mixer.py'\)"):
        eyesmith.load(tmp_path / "run")
    assert not (tmp_path / "ran").exists()
    eyesmith.register_encoder(kept)
    with pytest.raises(ConfigError, match="is not the file this was made with"):
        eyesmith.load(tmp_path / "run")


def test_an_encoder_alone_is_saved_too(tmp_path: Path) -> None:
    eyesmith.register_encoder(EXAMPLE)
    encoder = create_encoder("patch_mixer:pico", image_size=32).eval()
    save_model(tmp_path / "run", encoder)
    again = load_model(tmp_path / "run")
    assert isinstance(again, eyesmith.Encoder)
    assert torch.equal(again(torch.ones(1, 3, 32, 32)), encoder(torch.ones(1, 3, 32, 32)))


def test_an_edited_file_replaces_the_old_and_old_configs_still_build(tmp_path: Path) -> None:
    file = written(tmp_path, EXAMPLE.read_text("utf-8"))
    eyesmith.register_encoder(file)
    before = own_config("mine", "pico")
    file.write_text(file.read_text("utf-8").replace('"depth": 8', '"depth": 3'), encoding="utf-8")
    assert eyesmith.register_encoder(file) == "mine"
    after = own_config("mine", "pico")
    assert before.sha256 != after.sha256
    assert [len(config.build().blocks()) for config in (before, after)] == [8, 3]


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    text = EXAMPLE.read_text("utf-8")
    eyesmith.register_encoder(written(tmp_path, text))
    other = tmp_path / "other"
    other.mkdir()
    assert eyesmith.register_encoder(written(other, text)) == "mine"  # the same bytes elsewhere
    with pytest.raises(ConfigError, match="the name 'mine' is that of"):
        eyesmith.register_encoder(written(other, text + "# edited\n"))
    assert eyesmith.register_encoder(written(other, text + "NAME = 'theirs'\n")) == "theirs"
    assert set(own_encoders()) == {"mine", "theirs"}
    for name in ("ViTamin", "vitamin_small_224", "TRV"):
        with pytest.raises(ConfigError, match="is that of an encoder of eyesmith's"):
            eyesmith.register_encoder(written(other, text + f"NAME = {name!r}\n"))


GOOD = "SIZES = {'pico': {'width': 8}}\ndef build(*, image_size, embed_dim, width): return None\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def build(:\n", "line 1 is no Python"),
        ("x = 1\n1 / 0\n", r"running it raised ZeroDivisionError: division by zero \(line 2\)"),
        ("raise SystemExit(3)\n", "running it raised SystemExit"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
        ("", "SIZES is missing: .*; build is missing: expected def build"),
        (GOOD.replace("def build", "def make"), "build is missing"),
        (GOOD.replace("{'width': 8}", "8"), r"SIZES\['pico'\]: expected keyword arguments of build as a dict, got 8"),
        (GOOD.replace("'width'", "'image_size'"), "image_size are given by the caller"),
        (GOOD.replace("{'pico': {'width': 8}}", "{}"), "expected a dict with one size or more"),
        (GOOD.replace(", width)", ")"), "unexpected keyword argument 'width'"),
        (GOOD.replace("embed_dim, ", ""), "unexpected keyword argument 'embed_dim'"),
        (GOOD + "MEAN = (128, 128, 128)\n", "MEAN: expected three numbers in 0..1"),
        (GOOD + "NAME = 'a/b'\n", "its name is 'a/b'"),
    ],
)
def test_a_file_that_defines_no_encoder_is_refused_with_what_is_wrong(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        eyesmith.register_encoder(written(tmp_path, content))
    assert "mine.py: defines no encoder: " in str(caught.value)
    assert not own_encoders()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        eyesmith.register_encoder(tmp_path / "none.py")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("return PatchMixer(", "raise KeyError("), r"raised KeyError: .* \(line \d+\)"),
        (("return PatchMixer(", "return len("), "raised TypeError"),
        (("return PatchMixer(image_size, embed_dim, width, depth)", "return nn.Identity()"), "gave Identity, expected"),
        (("MEAN = STD = (0.5, 0.5, 0.5)", "MEAN = STD = (0.5, 0.5, 0.5)\nSTD = (0.2, 0.2, 0.2)"), ""),
        (("self.std = image_size, 16, MEAN, STD", "self.std = image_size, 16, MEAN, MEAN[::-1]"), ""),
        (("self.mean, self.std = image_size, 16, MEAN, STD", "self.mean = image_size, 16, MEAN"), "declare std"),
        (("Tap(16, width)", "Tap(16)"), r"raised TypeError: .*channels.* \(line \d+\)"),
        (("self.image_size, self.stride", "self.image_size_px, self.stride"), "does not declare image_size"),
        (("self.embed_dim = embed_dim or width", "self.embed_dim = width"), "embed_dim 232, expected 16"),
        (("MEAN, STD\n", "(0.1, 0.1, 0.1), STD\n"), r"mean \(0.1, 0.1, 0.1\), expected .* set MEAN"),
    ],
)
def test_what_is_built_is_looked_at(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    text = EXAMPLE.read_text("utf-8")
    assert change[0] in text
    name = eyesmith.register_encoder(written(tmp_path, text.replace(*change)))
    config = own_config(name, "pico", embed_dim=16)
    if not message:
        assert config.build().config == config
        return
    with pytest.raises(ConfigError, match=message):
        config.build()


def test_the_command_line_registers_before_the_verb(tmp_path: Path) -> None:
    from eyesmith.cli.main import main, register_encoders

    assert register_encoders(["--encoder", str(EXAMPLE), "models", "--json"]) == ["models", "--json"]
    assert set(own_encoders()) == {"patch_mixer"}
    assert register_encoders([f"--encoder={EXAMPLE}", "models"]) == ["models"]
    assert main(["--encoder", str(written(tmp_path, "")), "models"]) == 2
    assert main(["--encoder"]) == 2


def test_the_config_alone_is_light_to_import() -> None:
    program = "import sys, eyesmith; assert 'register_encoder' in dir(eyesmith); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("file", ["../mixer.py", "/etc/mixer.py", "a\\mixer.py", "..", ""])
def test_a_config_names_a_file_without_its_folder(file: str) -> None:
    # a run writes its copy under that name
    with pytest.raises(ConfigError, match="without its folder"):
        OwnEncoderConfig(name="mixer", file=file, sha256="0" * 64, size="tiny", image_size=(32, 32), embed_dim=0)
