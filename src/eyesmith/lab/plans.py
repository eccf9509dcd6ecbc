"""Plans by name or from a file: `eyesmith lab run PLAN`."""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from eyesmith.config import closest, from_dict
from eyesmith.errors import ConfigError
from eyesmith.files import load_json
from eyesmith.lab.plan import Group, LabPlan

FAMILIES = ("ViT/16", "ConvNeXt", "CoAtNet", "ViTamin")
BUDGETS = (5_000.0, 15_000.0, 45_000.0)  # images seen; threefold steps, as the paper's are four- and 2.5-fold


def laptop() -> LabPlan:
    """The paper's benchmark as a proxy: four families at two sizes and three budgets, and their strides."""
    return LabPlan(
        name="laptop",
        title="Four families of image encoders under one protocol",
        groups=(
            Group(name="families", question="grid", encoders=FAMILIES, sizes=("pico", "nano"), budgets=BUDGETS),
            Group(
                name="patches",
                question="resolution",
                encoders=("ViT/16", "ViT/32", "ViT/8"),
                sizes=("pico",),
                budgets=BUDGETS[2:],
            ),
        ),
    )


def smoke() -> LabPlan:
    """The same in minutes: every answer is drawn, none is worth anything."""
    return LabPlan(
        name="smoke",
        title="Four families, in minutes",
        groups=(
            Group(
                name="families",
                question="grid",
                encoders=FAMILIES,
                sizes=("pico", "nano"),
                budgets=(640.0, 1280.0, 2560.0),
                seeds=(0,),
            ),
            Group(
                name="patches",
                question="resolution",
                encoders=("ViT/16", "ViT/32", "ViT/8"),
                sizes=("pico",),
                budgets=(2560.0,),
                seeds=(0,),
            ),
        ),
    )


def ltt() -> LabPlan:
    """Locked-Text Tuning against a text tower that trains too, for ViTamin and a plain ViT."""
    return LabPlan(
        name="ltt",
        title="What a frozen text encoder gives",
        groups=(
            Group(
                name="text",
                question="ltt",
                encoders=("ViTamin", "ViT/16"),
                sizes=("pico",),
                budgets=BUDGETS[2:],
                recipes=("lab-joint", "lab-ltt"),
            ),
        ),
    )


def stride() -> LabPlan:
    """Pixels per token, for ViT and for ViTamin."""
    return LabPlan(
        name="stride",
        title="Pixels per token",
        groups=(
            Group(
                name="vit",
                question="resolution",
                encoders=("ViT/16", "ViT/32", "ViT/8"),
                sizes=("pico",),
                budgets=BUDGETS[2:],
            ),
            Group(
                name="vitamin",
                question="resolution",
                encoders=("ViTamin", "ViTamin:stride32", "ViTamin:stride8"),
                sizes=("pico",),
                budgets=BUDGETS[2:],
            ),
        ),
    )


def blocks() -> LabPlan:
    """The paper's micro designs: MBConv-LN against BN and SE, GeGLU against an MLP, numbers of MBConv blocks."""
    return LabPlan(
        name="blocks",
        title="ViTamin's blocks, one changed at a time",
        groups=(
            Group(
                name="blocks",
                question="block",
                encoders=("ViTamin", "ViTamin:bn-se", "ViTamin:mlp", "ViTamin:depths-1-2", "ViTamin:depths-4-8"),
                sizes=("pico",),
                budgets=BUDGETS[2:],
            ),
        ),
    )


def scaling() -> LabPlan:
    """A law of five budgets at a constant rate with a cool-down; the largest is foretold by the others first."""
    return LabPlan(
        name="scaling",
        title="How error falls with images seen, and how far the law foretells",
        groups=(
            Group(
                name="scaling",
                question="grid",
                encoders=("ViTamin", "ViT/16"),
                sizes=("pico",),
                budgets=(2_500.0, 5_000.0, 10_000.0, 20_000.0, 40_000.0),
                recipes=("lab-cooldown",),
            ),
        ),
    )


def _beside(
    name: str, title: str, recipes: tuple[str, ...], encoders: tuple[str, ...] = ("ViTamin", "ViT/16")
) -> LabPlan:
    """One way to train beside another."""
    group = Group(
        name=name,
        question="recipe",
        encoders=encoders,
        sizes=("pico",),
        budgets=BUDGETS[2:],
        recipes=recipes,
    )
    return LabPlan(name=name, title=title, groups=(group,))


def optimisers() -> LabPlan:
    """Muon against AdamW, at the same rate and decay."""
    return _beside("optimisers", "Muon against AdamW", ("lab-ltt", "lab-muon"))


def captioning() -> LabPlan:
    """Captions told word by word as one more loss (CoCa), beside pairs alone."""
    return _beside("captioning", "What telling captions adds", ("lab-joint-muon", "lab-caption"))


def buckets() -> LabPlan:
    """Batches of three sizes beside squares of one, at equal images seen; timm's backbones see one size only."""
    return _beside("buckets", "Pictures at several sizes", ("lab-muon", "lab-buckets"), ("ViTamin",))


PLANS: dict[str, Callable[[], LabPlan]] = {
    "laptop": laptop,
    "smoke": smoke,
    "ltt": ltt,
    "stride": stride,
    "blocks": blocks,
    "optimisers": optimisers,
    "scaling": scaling,
    "captioning": captioning,
    "buckets": buckets,
}


def read_plan(source: str) -> LabPlan:
    """A plan by its name, or from a TOML or JSON file. Raises ConfigError for what is neither or wrong."""
    if source in PLANS:
        return PLANS[source]()
    path = Path(source)
    if path.suffix not in (".toml", ".json"):
        raise ConfigError(
            f"plan: there is none called {source!r}{closest(source, PLANS)}; or name a .toml or .json file"
        )
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text) if path.suffix == ".toml" else load_json(text)
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    if not isinstance(content, Mapping):
        raise ConfigError(f"{path}: expected the fields of a plan by name, got {type(content).__name__}")
    try:
        return from_dict(LabPlan, {"name": path.stem, "title": path.stem, **content})
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
