"""The trained and the frozen classifier, and their ensemble, beside loops over the facts of FC-CLIP."""

import math

import pytest
import torch
import torch.nn.functional as F

from eyesmith.dense.fusion import FUSIONS, Fusion
from eyesmith.dense.segment.classes import TextSpaceClassifier, frozen_logits, fused, mask_pool
from eyesmith.dense.segment.decoder import MaskMaps
from eyesmith.dense.vocabulary import Vocabulary
from eyesmith.errors import ShapeError


@pytest.fixture
def vocabulary() -> Vocabulary:
    vectors = F.normalize(torch.randn(5, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    return Vocabulary(("a", "b", "c"), ("a", "aa", "b", "c", "cc"), vectors, torch.tensor([0, 0, 1, 2, 2]))


def test_pooling_is_the_mean_inside() -> None:
    features, masks = torch.randn(2, 4, 3, 5), torch.randn(2, 6, 3, 5)
    masks[1, 2] = -1  # nothing
    found = mask_pool(features, masks)
    for row in range(2):
        for query in range(6):
            inside = masks[row, query] > 0
            wanted = features[row][:, inside].mean(1) if inside.any() else torch.zeros(4)
            torch.testing.assert_close(found[row, query], wanted)
    with pytest.raises(ShapeError, match=r"expected \[2, Q, 3, 5\]"):
        mask_pool(features, masks[:, :, :2])


def test_logits_are_the_best_synonym_s_cosine_and_voids(vocabulary: Vocabulary) -> None:
    torch.manual_seed(1)
    head = TextSpaceClassifier(8, 6)
    queries, masks, features = (
        torch.randn(2, 4, 8),
        torch.randn(2, 4, 3, 3, requires_grad=True),
        torch.randn(2, 8, 3, 3),
    )
    (said,) = head.predictions(MaskMaps([queries], [masks], [features]), vocabulary)
    vector = head.embed(head.pooled(head.pooled_norm(mask_pool(features, masks)[1, 2])) + queries[1, 2])
    vector = vector.detach() / vector.detach().norm()
    cosines = [float(vector @ row) for row in vocabulary.vectors]
    wanted = [
        max(cosines[:2]),
        cosines[2],
        max(cosines[3:]),
        float(vector @ head.void.detach()[0] / head.void.detach().norm()),
    ]
    torch.testing.assert_close(said.classes[1, 2], torch.tensor(wanted) / 0.07, rtol=1e-4, atol=1e-4)
    said.classes.sum().backward()
    assert masks.grad is None or not masks.grad.any(), "which cells are pooled is not learnt"
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in head.parameters())


def test_the_scale_ends_at_100(vocabulary: Vocabulary) -> None:
    head = TextSpaceClassifier(8, 6)
    vectors = vocabulary.vectors[None, 2:3]
    with torch.no_grad():
        head.log_scale.fill_(math.log(1e4))
    assert head(vectors, vocabulary)[0, 0, 1].item() == pytest.approx(100)
    assert frozen_logits(
        vectors.view(1, 6, 1, 1), torch.ones(1, 1, 1, 1), torch.nn.Identity(), vocabulary, 1e4
    ).max().item() == pytest.approx(100)


def test_the_frozen_encoder_is_asked_about_pooled_cells(vocabulary: Vocabulary) -> None:
    torch.manual_seed(2)
    dense, project = torch.randn(1, 7, 2, 2), torch.nn.Linear(7, 6)
    masks = torch.full((1, 2, 4, 4), -1.0)
    masks[0, 0, :2, :2] = masks[0, 1, 2:] = 1
    found = frozen_logits(dense, masks, project, vocabulary, 20.0)
    vector = F.normalize(project(dense[0, :, 1].mean(1)), dim=0)
    cosines = vocabulary.vectors @ vector
    wanted = 20 * torch.stack([cosines[:2].max(), cosines[2], cosines[3:].max()])
    torch.testing.assert_close(found[0, 1], wanted.detach())
    assert not found.requires_grad
    first = frozen_logits(dense, masks, project, vocabulary, 20.0, is_projected_first=True)
    torch.testing.assert_close(first[0, 0], found[0, 0])  # one cell: the order does not matter
    assert not torch.allclose(first[0, 1], found[0, 1])


def test_the_ensemble_is_fc_clips(vocabulary: Vocabulary) -> None:
    """A loop over the written rule: exponents by seen, renormalised, (1 - void), void appended."""
    del vocabulary
    draws = torch.Generator().manual_seed(3)
    inside, outside = torch.randn(1, 2, 4, generator=draws), torch.randn(1, 2, 3, generator=draws)
    seen = torch.tensor([True, False, False])
    found = fused(inside, outside, seen, FUSIONS["fc-clip"])
    for query in range(2):
        void = inside[0, query].exp()[3] / inside[0, query].exp().sum()
        one = inside[0, query, :3].exp() / inside[0, query, :3].exp().sum()
        two = outside[0, query].exp() / outside[0, query].exp().sum()
        mixed = [one[k] ** 0.6 * two[k] ** 0.4 if seen[k] else one[k] ** 0.2 * two[k] ** 0.8 for k in range(3)]
        wanted = torch.stack(mixed) / torch.stack(mixed).sum() * (1 - void)
        torch.testing.assert_close(found.classes[0, query], wanted)
        torch.testing.assert_close(found.void[0, query], void)
        torch.testing.assert_close(found.classes[0, query].sum() + found.void[0, query], torch.tensor(1.0))
    alone = fused(inside, None, seen, FUSIONS["fc-clip"])
    torch.testing.assert_close(torch.cat([alone.classes, alone.void[..., None]], -1), inside.softmax(-1))
    off = fused(inside, outside, seen, Fusion(alpha=0.0, beta=0.0))
    torch.testing.assert_close(off.classes, alone.classes)
    empty = fused(inside, outside, seen, FUSIONS["fc-clip"], has_cells=torch.tensor([[True, False]]))
    torch.testing.assert_close(empty.classes[0, 1], alone.classes[0, 1])
    torch.testing.assert_close(empty.classes[0, 0], found.classes[0, 0])
    assert (FUSIONS["fc-clip-sliding"].alpha, FUSIONS["fc-clip-sliding"].beta) == (0.45, 0.7)
