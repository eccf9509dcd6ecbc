"""The sentences that the published systems make of a class name.

{} stands for the name, {article} for "a" or "an" before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from eyesmith.errors import ConfigError

_SIZES = ("small", "medium", "large")

FC_CLIP_TEMPLATES: tuple[str, ...] = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    *(f"a photo of a {size} {{}}." for size in _SIZES),
    *(f"This is a photo of a {size} {{}}." for size in _SIZES),
    *(f"There is a {size} {{}} in the scene." for size in _SIZES),
)
"""ViLD's short list of 14, full stops as FC-CLIP has them."""

_THING = (
    "{article}",
    "the",
)  # what an indefinite and a definite sentence have before the name, or before its adjective
_PHOTOS = ("bright", "dark", "low resolution", "cropped", "close-up", "jpeg corrupted", "blurry", "pixelated")


def _both(sentence: str, words: Sequence[str], articles: Sequence[str]) -> tuple[str, ...]:
    return tuple(sentence.format(article, word) for word in words for article in articles)


VILD_TEMPLATES: tuple[str, ...] = tuple(
    chain(
        ("There is {article} {} in the scene.", "There is the {} in the scene."),
        (f"a photo of {one} {{}} in the scene." for one in (*_THING, "one")),
        (f"itap of {one} {{}}." for one in ("{article}", "my", "the")),  # itap: I took a picture
        (f"a photo of {one} {{}}." for one in ("{article}", "my", "the", "one", "many")),
        _both("a {1} photo of {0} {{}}.", ("good", "bad"), _THING),
        _both("a photo of {0} {1} {{}}.", ("nice", "cool", "weird", "small", "large", "clean", "dirty"), ("a", "the")),
        _both("a {1} photo of {0} {{}}.", _PHOTOS[:2], _THING),
        _both("a photo of {0} {1} {{}}.", ("hard to see",), ("a", "the")),
        _both("a {1} photo of {0} {{}}.", _PHOTOS[2:], _THING),
        _both("a {1} photo of {0} {{}}.", ("black and white",), tuple(reversed(_THING))),
        _both("{0} {1} {{}}.", ("plastic", "toy", "plushie", "cartoon"), ("a", "the")),
        ("an embroidered {}.", "the embroidered {}.", "a painting of the {}.", "a painting of a {}."),
    )
)
"""ViLD's long list of 63."""


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """How a class name becomes sentences; the text vector of the name is the mean of theirs."""

    templates: tuple[str, ...]
    """Sentences with {} for the name, and {article} where "a" or "an" shall stand."""
    clean_names: bool = False
    """Names in lower case, underscores as spaces, a slash as "or", without trailing full stops (ViLD)."""
    this_is: bool = False
    """Put "This is" before sentences that begin with the letters a or the. The reference's test is that bare: it would
    hit "angry" too."""

    def __post_init__(self) -> None:
        if isinstance(self.templates, str) or not self.templates:
            raise ConfigError(f"templates: expected one or more sentences, got {self.templates!r}")
        if wrong := [template for template in self.templates if "{}" not in template]:
            raise ConfigError(f"templates: {wrong[0]!r} has no {{}} for the class name")

    def name(self, name: str) -> str:
        """The name as the sentences have it."""
        if not self.clean_names:
            return name
        return name.replace("_", " ").replace("/", " or ").lower().rstrip(".")

    def templates_of(self, name: str) -> tuple[str, ...]:
        """The templates as this name needs them, with {} alone left to fill."""
        name = self.name(name)
        article = "an" if name[:1] in tuple("aeiou") else "a"
        found = [template.replace("{article}", article) for template in self.templates]
        if self.this_is:
            found = [f"This is {one}" if one.replace("{}", name).startswith(("a", "the")) else one for one in found]
        return tuple(found)

    def sentences(self, name: str) -> list[str]:
        """One a template."""
        return [template.replace("{}", self.name(name)) for template in self.templates_of(name)]


PROMPTS: dict[str, Prompts] = {
    "name": Prompts(templates=("{}",)),
    "photo": Prompts(templates=("a photo of a {}.",)),
    "fc-clip": Prompts(templates=FC_CLIP_TEMPLATES),
    "f-vit": Prompts(templates=VILD_TEMPLATES, clean_names=True, this_is=True),
}
"""Ways to ask, by name: of FC-CLIP and F-ViT those that their released text vectors were made with."""
