from math import comb
from typing import Any

import pytest
import torch

from eyesmith.errors import DataError, EyesmithError, ShapeError
from eyesmith.eval.sets.made import retrieval
from eyesmith.eval.statistics.pair_ranks import first_hit_ranks


def slow_ranks(queries: Any, candidates: Any, query_group: Any, candidate_group: Any) -> list[int]:
    found = []
    for query, group in zip(queries.double(), query_group.tolist(), strict=True):
        scores = [float((query * candidate).sum().float()) for candidate in candidates.double()]
        order = sorted(range(len(scores)), key=lambda k: (-scores[k], k))
        found.append(next(place for place, k in enumerate(order) if candidate_group[k] == group))
    return found


@pytest.mark.parametrize("block", [1, 3, 8, 1000])
def test_ranks_equal_a_double_loop_for_every_block_size(block: int) -> None:
    generator = torch.Generator().manual_seed(4)
    # few distinct values: many exact ties
    queries = torch.randint(-2, 3, (23, 3), generator=generator).float()
    candidates = torch.randint(-2, 3, (17, 3), generator=generator).float()
    query_group = torch.randint(0, 5, (23,), generator=generator)
    candidate_group = torch.cat([torch.arange(5), torch.randint(0, 5, (12,), generator=generator)])
    found = first_hit_ranks(queries, candidates, query_group, candidate_group, block=block)
    assert found.tolist() == slow_ranks(queries, candidates, query_group, candidate_group)


def test_rows_equal_a_double_loop_over_images_and_texts(make_clip: Any, colour_source: Any) -> None:
    clip = make_clip(wrong={"blue": "pink"})
    rows = {row.metric: row for row in retrieval(colour_source, split="val").rows(clip, model_name="m")}
    images = clip.encode_image(torch.stack([_solid(colour_source, i) for i in range(12)]))
    captions = [(i, clip.text_row(text)) for i in range(12) for text in colour_source.texts(i)]
    for k in (1, 5, 10):
        hits = 0
        for own, text in captions:
            scores = [float((text.double() * image.double()).sum().float()) for image in images]
            hits += own in sorted(range(12), key=lambda i: (-scores[i], i))[:k]
        assert rows[f"image_retrieval_recall@{k}"].value == hits / 24
        hits = 0
        for own, image in enumerate(images):
            scores = [float((image.double() * text.double()).sum().float()) for _, text in captions]
            best = sorted(range(24), key=lambda t: (-scores[t], t))[:k]
            hits += any(captions[t][0] == own for t in best)
        assert rows[f"text_retrieval_recall@{k}"].value == hits / 12
    assert {row.task for row in rows.values()} == {"retrieval"}
    assert (rows["image_retrieval_recall@1"].n, rows["text_retrieval_recall@1"].n) == (24, 12)
    assert rows["image_retrieval_recall@5"].chance == pytest.approx(5 / 12)
    assert rows["text_retrieval_recall@5"].chance == pytest.approx(1 - comb(22, 5) / comb(24, 5))


def _solid(source: Any, index: int) -> torch.Tensor:
    import io

    from PIL import Image

    colour = Image.open(io.BytesIO(source.image_bytes(index))).getpixel((0, 0))
    return torch.tensor(colour, dtype=torch.uint8)[:, None, None].expand(3, 4, 4)


def test_own_image_alone_is_right_unless_labels_are_asked_for(make_clip: Any, colour_source: Any) -> None:
    own = {row.metric: row for row in retrieval(colour_source, split="v").rows(make_clip(), model_name="m")}
    label = {
        row.metric: row for row in retrieval(colour_source, split="v", by_label=True).rows(make_clip(), model_name="m")
    }
    # both shades have equal captions: at most one of two texts finds its own image first
    assert own["image_retrieval_recall@1"].value <= 0.5
    assert label["image_retrieval_recall@1"].value == 1.0
    assert label["image_retrieval_recall@1"].chance == pytest.approx(2 / 12)
    assert (
        label["image_retrieval_recall@1"].low < own["image_retrieval_recall@10"].value
    )  # six clusters: a wide interval


def test_an_image_without_text_is_a_candidate_only(
    make_clip: Any, make_source: Any, make_png: Any, colours: Any
) -> None:
    samples = [("a", make_png(colours["red"]), (), None), ("b", make_png(colours["red"]), ("red",), None)]
    rows = {row.metric: row for row in retrieval(make_source(samples), split="v").rows(make_clip(), model_name="m")}
    assert rows["image_retrieval_recall@1"].value == 0.0  # "a" is the same picture and stands first
    assert (rows["text_retrieval_recall@1"].value, rows["text_retrieval_recall@1"].n) == (1.0, 1)
    assert "image_retrieval_recall@5" not in rows


def test_what_cannot_be_asked_is_refused(make_source: Any, colour_source: Any, make_png: Any) -> None:
    bare = make_source([("a", make_png((1, 2, 3)), (), None)])
    with pytest.raises(DataError, match="captions"):
        retrieval(bare, split="v")
    with pytest.raises(DataError, match="labels"):
        retrieval(bare, split="v", by_label=True)
    rows, groups = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(DataError, match="query 1 has no right answer"):
        first_hit_ranks(rows, rows, torch.tensor([0, 1]), groups)
    with pytest.raises(ShapeError, match="groups"):
        first_hit_ranks(rows, rows, groups[:1], groups)
    with pytest.raises(EyesmithError, match="not finite"):
        first_hit_ranks(rows * torch.nan, rows, groups, groups)
