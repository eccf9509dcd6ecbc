import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageDraw

from eyesmith.data.shards import ShardWriter
from eyesmith.images import AugmentConfig, PreprocessConfig, TrainTransformConfig
from eyesmith.models import own
from eyesmith.models.clip import ClipConfig
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.vitamin.model import ViTaminConfig
from eyesmith.optim.config import OptimConfig
from eyesmith.tasks.contrastive import TrainConfig
from eyesmith.train.config import DataConfig
from eyesmith.train.diagnostics import HealthConfig

COLORS = ("red", "green", "blue", "black", "orange", "purple")
EIGHT_COLORS = (*COLORS, "brown", "pink")


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: discs of six colours, each at four sizes."""
    folder = tmp_path_factory.mktemp("discs")
    for color in COLORS:
        (folder / color).mkdir()
        for size in range(4):
            image = Image.new("RGB", (40, 40), "white")
            ImageDraw.Draw(image).ellipse((8 - size, 8 - size, 30 + size, 30 + size), fill=color)
            image.save(folder / color / f"{size}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> ClipConfig:
    return ClipConfig(
        name="tiny",
        image=ViTaminConfig(image_size=(32, 32), widths=(8, 16, 32), depths=(1, 1, 3), num_heads=2, embed_dim=16),
        text=ClipTextConfig(width=16, depth=1, heads=2, embed_dim=16, context_len=16),
        preprocess=PreprocessConfig(image_size=(32, 32)),
        prompts=("{}",),
    )


@pytest.fixture(scope="session")
def config(pairs: Path, tiny_model: ClipConfig) -> TrainConfig:
    """Eight steps an epoch of three pairs, three epochs, everything that draws random numbers switched on."""
    return TrainConfig(
        model=tiny_model,
        data=DataConfig(path=str(pairs), decode_px=40),
        augment=AugmentConfig(scale=(0.6, 1.0), rotation_degrees=10, horizontal_flip_prob=0.5, brightness=0.2),
        optim=OptimConfig(peak_lr=1e-3, ema_decay=0.9),
        health=HealthConfig(ignore=("waiting", "slower", "memory")),  # they tell of the machine of the test
        batch_size=3,
        epochs=3,
        precision="fp32",
        log_every_steps=1,
        save_every_steps=5,
    )


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of 9 squares and one of 6."""
    folder = tmp_path_factory.mktemp("shards")
    with ShardWriter(folder, shard_samples=9) as writer:
        for number in range(24):
            picture = Image.new("RGB", (40 + number % 5, 44), EIGHT_COLORS[number % 8])
            content = io.BytesIO()
            picture.save(content, "JPEG")
            writer.write(
                f"{number:05}", {"jpg": content.getvalue(), "txt": f"{EIGHT_COLORS[number % 8]} {number}".encode()}
            )
    return folder


@pytest.fixture
def streamed(config: TrainConfig, shards: Path) -> TrainConfig:
    return replace(
        config,
        data=DataConfig(path=str(shards), num_workers=2),
        augment=AugmentConfig(),
        transform=TrainTransformConfig(image_size=(32, 32), scale=(0.5, 1.0)),
        batch_size=4,
        save_every_steps=3,
    )


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests share no cache with the user, nor with the run before."""
    patch = pytest.MonkeyPatch()
    patch.setenv("EYESMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """The models of tests are tiny: threads that wait for each other cost far more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders that a test registers from files end with it."""
    for table in ("_BY_NAME", "_BY_HASH"):
        monkeypatch.setattr(own, table, {})


WriteOpenClip = Callable[..., Any]


@pytest.fixture(scope="session")
def write_open_clip() -> WriteOpenClip:
    """A function that writes a tiny model of open_clip, seeded, as a folder, and returns it: FOLDER, vision_cfg."""

    def write(folder: Path, vision: dict[str, Any], **text: Any) -> Any:
        from eyesmith.models.foreign.torchvision import ensure_torchvision

        ensure_torchvision()
        import open_clip
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        sizes = {"context_length": 12, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
        pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear"}
        content = {
            "model_cfg": {"embed_dim": 16, "vision_cfg": vision, "text_cfg": sizes | text},
            "preprocess_cfg": pixels | {"resize_mode": "squash"},
        }
        (folder / "open_clip_config.json").write_text(json.dumps(content))
        with torch.random.fork_rng():
            torch.manual_seed(3)
            made = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
        save_file(made.state_dict(), folder / "open_clip_model.safetensors")
        return made.eval()

    return write


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory, write_open_clip: WriteOpenClip) -> Path:
    """A tiny ViT with norms inside its blocks, which is not built here, in open_clip's old layout without `text.`."""
    folder = tmp_path_factory.mktemp("open_clip") / "tiny-vit"
    norms = {"block_type": "custom", "scale_fc": True, "scale_attn": True}
    write_open_clip(folder, {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8} | norms)
    return folder


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Chinese-CLIP as transformers' save_pretrained writes it, with a tokenizer of English words."""
    from eyesmith.models.foreign.packages import import_transformers

    transformers = import_transformers("a test")
    folder = tmp_path_factory.mktemp("transformers") / "tiny-pair"
    folder.mkdir()
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "photo", "of", "cat", "dog", "##s", *EIGHT_COLORS)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2}
    text = sizes | {"vocab_size": len(words), "max_position_embeddings": 16, "pad_token_id": 0}
    vision = sizes | {"image_size": 32, "patch_size": 8}
    config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = transformers.AutoModel.from_config(config)
        for parameter in model.parameters():  # zeros and ones of the library's draw would hide mistakes
            torch.nn.init.normal_(parameter, std=0.2)
    transformers.utils.logging.disable_progress_bar()
    model.eval().save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return folder
