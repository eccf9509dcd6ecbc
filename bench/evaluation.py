"""Zero-shot evaluation against clip-benchmark: the same weights, sets on disk and threads, fp32 on the CPU.

Theirs runs as its command line runs it, but for the model, which is in memory already: its data set, its loader with
four workers, batches of 64, its classifier builder and metrics, autocast off.
"""

import contextlib
import io
import json
import sys
import tarfile
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.captions import prompts_and_names
from bench.memory import of_fresh_process, reset_peak_mib, status_mib
from bench.pairs import Row, speed
from bench.pictures import jpegs
from eyesmith.eval import Settings, evaluate_suite
from eyesmith.eval.features.texts import TextFeatures
from eyesmith.eval.sets import Task
from eyesmith.eval.statistics.pair_ranks import pair_ranks
from eyesmith.images import PreprocessConfig
from eyesmith.models.clip import Clip, ClipConfig
from eyesmith.models.foreign.timm import TimmConfig
from eyesmith.models.foreign.torchvision import ensure_torchvision
from eyesmith.models.text.model import ClipTextConfig
from eyesmith.models.text.weights import from_open_clip as text_from_open_clip

NUM_IMAGES, NUM_PICTURES = 2000, 200  # images of the set, and distinct ones among them
BATCH, WORKERS = 64, 4  # clip-benchmark's defaults
WIDTH, DEPTH, HEADS, DIM = 512, 2, 8, 256  # of the text tower: 2 of the 12 layers of ViT-B/32's, which are all alike
BACKBONE = "regnetx_002"  # 0.2 GMAC at 224 px
BOUND = 1e-6  # of metrics
CLASSIFIER_BOUND = 2e-6  # of a classifier's numbers, which are below 1
NUM_TEXTS, NUM_FOUND, FOUND_DIM = 25_000, 5_000, 512


def rows() -> list[Row]:
    """Classifier, a set from disk to metrics, another task on its images, memory of a large retrieval."""
    model = peer_model()
    clip = our_model(model)
    with tempfile.TemporaryDirectory(prefix="eyesmith-bench-") as folder:
        return [classifier_100x80(clip, model), *sets(clip, model, Path(folder)), retrieval_memory()]


def peer_model() -> Any:
    """open_clip's model with a timm image tower, random weights."""
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    return open_clip.CustomTextCLIP(
        embed_dim=DIM,
        vision_cfg={"timm_model_name": BACKBONE, "timm_pool": "", "timm_proj": "linear", "image_size": 224},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": HEADS, "layers": DEPTH},
    ).eval()


def our_model(peer: Any) -> Clip:
    """The same weights in our towers."""
    clip = ClipConfig(
        name="RegNetX-200MF",
        image=TimmConfig(model_name=BACKBONE, embed_dim=DIM),
        text=ClipTextConfig(width=WIDTH, depth=DEPTH, heads=HEADS, embed_dim=DIM),
        preprocess=PreprocessConfig(image_size=(224, 224)),
    ).build()
    state = {key: value.clone() for key, value in peer.state_dict().items()}
    ours = {
        key.replace("visual.trunk.", "image.backbone."): value
        for key, value in state.items()
        if key.startswith("visual.trunk.")
    }
    ours["image.head.weight"] = state["visual.head.proj.weight"]
    ours |= {f"text.{key}": value for key, value in text_from_open_clip(state).items()}
    clip.load_state_dict(ours | {"logit_scale": state["logit_scale"]})
    return clip.eval()


def classifier_100x80(clip: Clip, model: Any) -> Row:
    """100 classes, OpenAI's 80 prompts, nothing remembered from before."""
    import open_clip
    from clip_benchmark.metrics.zeroshot_classification import zero_shot_classifier

    prompts, names = prompts_and_names()
    templates = [prompt.replace("{}", "{c}") for prompt in prompts]
    tokenizer = open_clip.get_tokenizer("ViT-B-32")

    def ours(chosen: list[str]) -> Tensor:
        return TextFeatures(clip).class_weights(chosen, templates)

    def theirs(chosen: list[str]) -> Tensor:
        with _quiet():
            return zero_shot_classifier(model, tokenizer, chosen, templates, "cpu", amp=False).T

    for side in (ours, theirs):  # a pair of 8,000 prompts would be too dear to warm up with
        side(["warm", "up"])
    return speed(
        "classifier_100x80",
        lambda number: list(dict.fromkeys(names))[100 * (number % 9) : 100 * (number % 9) + 100],
        ours,
        theirs,
        equal=lambda ours, others: bool((ours - others).abs().max() < CLASSIFIER_BOUND),
        count=8000,
        unit="prompts/s",
        peer=_peer(),
        note=f"{DEPTH} of the 12 layers of ViT-B/32's text tower, width {WIDTH}; {torch.get_num_threads()} threads; "
        f"equal within {CLASSIFIER_BOUND}",
        num_pairs=3,
        num_warmups=0,
    )


def sets(clip: Clip, model: Any, folder: Path) -> list[Row]:
    """A set of 2,000 JPEGs from disk to metrics, and a second task on the same pictures."""
    _, names = prompts_and_names()
    things = ("texture", "pattern", "thing", "surface")
    textures = [f"a photo of {article} {{c}} {thing}." for article in ("a", "the") for thing in things]
    first, second = folder / "first", folder / "second"
    _write_set(first, list(dict.fromkeys(names))[:47], textures)
    _write_set(second, list(dict.fromkeys(names))[100:147], [f"itap of {text}" for text in textures[:7]], like=first)
    kept = folder / "kept"
    _ours(clip, kept, first)  # the second task finds what the first has kept
    bench = partial(
        speed,
        theirs=partial(_theirs, model),
        equal=_same_metrics,
        count=NUM_IMAGES,
        unit="images/s",
        peer=_peer(),
        num_pairs=3,
    )
    about = f"JPEGs of 500 x 375 px, {BACKBONE} at 224 px, {torch.get_num_threads()} threads; metrics equal"
    return [
        bench(
            "zero_shot_2k",
            lambda _: first,
            partial(_ours, clip, None),
            note=f"47 classes, 8 prompts; {about}",
            num_warmups=1,
        ),
        bench(
            "second_task",
            lambda _: second,
            partial(_ours, clip, kept),
            note=f"47 other classes, 7 prompts, image features on disk from another task, no classifier; {about}",
            num_warmups=0,
        ),
    ]


def retrieval_memory() -> Row:
    """The high-water mark of ranking 25,000 texts and 5,000 images both ways, above their features."""
    peaks, metrics = {}, {}
    for who in ("ours", "theirs"):
        peaks[who], metrics[who] = of_fresh_process("bench.evaluation", who)
    ratio = peaks["theirs"] / peaks["ours"]
    return Row(
        row="retrieval_memory",
        ours=peaks["ours"],
        theirs=peaks["theirs"],
        unit="MiB",
        ratio=ratio,
        low=ratio,
        high=ratio,
        equal=_same_metrics(metrics["ours"], metrics["theirs"]),
        peer=_peer(),
        note=f"{NUM_TEXTS:,} texts, {NUM_FOUND:,} images, {FOUND_DIM} numbers each, R@1, 5 and 10 both ways; a fresh "
        "process a side",
    )


def _ours(clip: Clip, cache: Path | None, folder: Path) -> dict[str, float]:
    task = Task(key=folder.name, name=folder.name, size=NUM_IMAGES, num_classes=47, folder=folder.name)
    if cache is not None:
        for file in cache.glob("texts/*/*.npy"):  # the classifier is made anew, as theirs is
            file.unlink()
    (result,) = evaluate_suite(
        clip, [task], folder.parent, out=None, settings=Settings(cache=cache, num_workers=WORKERS)
    )
    assert result.is_measured, result.problem
    return {name: value for name, value in result.metrics.items() if value is not None}


def _theirs(model: Any, folder: Path) -> dict[str, float]:
    import open_clip
    from clip_benchmark.datasets.builder import build_wds_dataset
    from clip_benchmark.metrics import zeroshot_classification

    # numpy 2.4 no longer makes a number of their array with one element
    vars(zeroshot_classification)["float"] = lambda value: float(np.asarray(value).item())
    transform: Any = open_clip.image_transform(224, is_train=False)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    with _quiet():
        data: Any = build_wds_dataset(folder.name, transform, "test", str(folder))
        loader = torch.utils.data.DataLoader(data.batched(BATCH), batch_size=None, shuffle=False, num_workers=WORKERS)
        return zeroshot_classification.evaluate(
            model, loader, tokenizer, data.classes, data.templates, "cpu", amp=False
        )


def _same_metrics(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    """Of theirs, which ours hold among others."""
    return all(abs(ours[name] - value) < BOUND for name, value in theirs.items())


def _write_set(folder: Path, names: list[str], templates: list[str], *, like: Path | None = None) -> None:
    """A set in the hub's layout: 2,000 samples in one shard, as sets of that size have; `like`: take its pictures."""
    (folder / "test").mkdir(parents=True)
    (folder / "classnames.txt").write_text("".join(f"{name}\n" for name in names))
    (folder / "zeroshot_classification_templates.txt").write_text("".join(f"{text}\n" for text in templates))
    (folder / "test" / "nshards.txt").write_text("1")
    if like is not None:
        (folder / "test" / "0.tar").hardlink_to(like / "test" / "0.tar")
        return
    pictures = jpegs(375, 500, num_bytes=83_000, count=NUM_PICTURES)
    with tarfile.open(folder / "test" / "0.tar", "w") as tar:
        for number in range(NUM_IMAGES):
            members = {"jpg": pictures[number % NUM_PICTURES], "cls": str(number % len(names)).encode()}
            for extension, content in members.items():
                member = tarfile.TarInfo(f"s{number:07d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _peer() -> str:
    return f"clip-benchmark {version('clip-benchmark')}, open_clip {version('open_clip_torch')}"


@contextlib.contextmanager
def _quiet() -> Any:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _peak(who: str) -> tuple[float, dict[str, float]]:
    """MiB at the highest above the features, and the recalls."""
    generator = torch.Generator().manual_seed(0)
    images = torch.nn.functional.normalize(torch.randn(NUM_FOUND, FOUND_DIM, generator=generator), dim=1)
    owner = torch.arange(NUM_TEXTS) % NUM_FOUND
    texts = images[owner] + 0.16 * torch.randn(NUM_TEXTS, FOUND_DIM, generator=generator)
    texts = torch.nn.functional.normalize(texts, dim=1)
    order = owner.argsort(stable=True)
    texts, owner = texts[order], owner[order]
    action: Callable[[], dict[str, float]]
    if who == "ours":
        action = partial(_our_recalls, images, texts, owner)
    else:
        action = _their_recalls(images, texts)
    before = reset_peak_mib()
    found = action()
    return status_mib("VmHWM") - before, found


def _our_recalls(images: Tensor, texts: Tensor, owner: Tensor) -> dict[str, float]:
    for_text, for_image = pair_ranks(images, texts, owner)
    found = {f"image_retrieval_recall@{k}": float((for_text < k).double().mean()) for k in (1, 5, 10)}
    return found | {f"text_retrieval_recall@{k}": float((for_image < k).double().mean()) for k in (1, 5, 10)}


def _their_recalls(images: Tensor, texts: Tensor) -> Callable[[], dict[str, float]]:
    """Their evaluation with towers that hand over ready features, which it copies and normalises."""
    from clip_benchmark.metrics import zeroshot_retrieval

    class Ready:
        def encode_image(self, rows: Tensor) -> Tensor:
            return images[rows]

        def encode_text(self, rows: Tensor) -> Tensor:
            return texts[rows]

    each = NUM_TEXTS // NUM_FOUND
    batches = [
        (part, [list(range(each * int(i), each * int(i) + each)) for i in part])
        for part in torch.arange(NUM_FOUND).split(BATCH)
    ]

    def run() -> dict[str, float]:
        with _quiet():
            return zeroshot_retrieval.evaluate(
                Ready(), batches, torch.tensor, "cpu", amp=False, recall_k_list=[1, 5, 10]
            )

    return run


if __name__ == "__main__":
    print(json.dumps(_peak(sys.argv[1])))
