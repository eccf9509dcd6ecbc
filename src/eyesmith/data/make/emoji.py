"""Emoji as image-text pairs: one concept in the drawings of several icon sets.

The sets and the English names and tags come from pinned npm packages. Which concepts, styles and splits there are is
said by the world (`worlds.py`).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eyesmith.data.make.icons import ALL_GROUPS, Concept, IconSet
from eyesmith.data.make.phrases import captions, concept_captions
from eyesmith.data.make.render import SvgRenderer
from eyesmith.data.make.worlds import Holdout, World, WorldName, check_world, read_world
from eyesmith.data.shards import ShardWriter, begin_dataset, finish_dataset, split_facts
from eyesmith.errors import ConfigError

MAKER_VERSION = 1  # raise it when the same parameters would give other bytes

TEMPLATES = ("{}", "{} emoji", "a drawing of a {}", "an emoji of a {}")  # "a" before a vowel too: a template is blind


def make_emoji(
    folder: Path,
    *,
    world: WorldName = "large",
    holdout: Holdout = "drawing",
    style: str = "openmoji",
    groups: Sequence[str] = ALL_GROUPS,
    size_px: int = 72,
    seed: int = 0,
    alpha: bool = False,
) -> dict[str, Any]:
    """Make the data set in `folder`; returns the content of its dataset.json (also when it was already made).

    world, holdout, style, groups, seed: as `read_world` takes them. size_px: side of the square images, RGB on white;
    alpha: RGBA, transparent where nothing is drawn. Raises what `read_world` raises, ConfigError for a wrong argument,
    DataError when the folder holds something else, MissingDependencyError without resvg-py.
    """
    check_world(world, holdout=holdout, style=style, groups=groups)
    if not 8 <= size_px <= 1024:
        raise ConfigError(f"size_px: expected 8 to 1024, got {size_px}")
    parameters: dict[str, Any] = {"holdout": holdout, "size_px": size_px, "seed": seed}
    if holdout == "style":
        parameters["style"] = style
    if world != "small":
        parameters |= {"world": world, "groups": list(groups)}
    if alpha:
        parameters["alpha"] = True
    identity = {"name": "emoji", "maker": "emoji", "maker_version": MAKER_VERSION, "parameters": parameters}
    made = begin_dataset(folder, identity)
    if made is not None:
        return made
    drawn = read_world(world, holdout=holdout, style=style, groups=groups, seed=seed)
    facts = _write_splits(folder, drawn, size_px=size_px, alpha=alpha)
    return finish_dataset(
        folder,
        {
            **identity,
            "size_px": size_px,
            "classes": [concept.label for concept in drawn.concepts],
            "templates": list(TEMPLATES),
            "splits": facts,
            "sources": drawn.sources,
            "held_out_concepts": [c.label for c in drawn.concepts if c.hexcode in drawn.unseen_concepts],
            "split_rule": drawn.split_rule,
        }
        | ({"left_out": dict(drawn.left_out)} if drawn.left_out else {}),
    )


def sample_record(
    concept: Concept, icons: IconSet, names_source: Mapping[str, Any], texts: Sequence[str]
) -> dict[str, Any]:
    """The json member of a sample. `licence` is that of the drawing, `text_licence` that of name and tags."""
    return {
        "concept": concept.label,
        "label": concept.label,
        "style": icons.style,
        "group": concept.group,
        "subgroup": concept.subgroup,
        "tags": list(concept.tags),
        "texts": list(texts),
        "source": icons.source["name"],
        "source_version": icons.source["version"],
        "licence": icons.source["licence"],
        "text_source": f"{names_source['name']}@{names_source['version']}",
        "text_licence": names_source["licence"],
        "hexcode": concept.hexcode,
    }


def _write_splits(folder: Path, world: World, *, size_px: int, alpha: bool) -> dict[str, Any]:
    by_hexcode = {concept.hexcode: (index, concept) for index, concept in enumerate(world.concepts)}
    facts: dict[str, Any] = {}
    for split, members in world.splits.items():
        drawings = [
            (world.sets[style].svgs[hexcode], f"{world.sets[style].source['name']}: {by_hexcode[hexcode][1].label}")
            for hexcode, style in members
        ]
        with ShardWriter(folder / split) as writer, SvgRenderer() as renderer:
            pngs = renderer.pngs(drawings, size_px=size_px, alpha=alpha)
            for (hexcode, style), png in zip(members, pngs, strict=True):
                index, concept = by_hexcode[hexcode]
                texts = captions(concept.label, concept.tags, concept.subgroup, style.partition("-")[0])
                if world.name == "large":
                    texts = concept_captions(concept.label, concept.tags, concept.subgroup)
                record = sample_record(concept, world.sets[style], world.names_source, texts)
                content = {
                    "png": png,
                    "txt": concept.label.encode(),
                    "cls": str(index).encode(),
                    "json": json.dumps(record, ensure_ascii=False).encode(),
                }
                writer.write(f"{hexcode.lower()}_{style}", content)
        facts[split] = split_facts(writer, world.candidates(split))
    return facts
