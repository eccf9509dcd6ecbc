import pytest
import torch
import torch.nn.functional as F

from eyesmith.errors import DataError
from eyesmith.eval.statistics import pair_ranks as module
from eyesmith.eval.statistics.pair_ranks import pair_ranks


@pytest.mark.parametrize("blocks", [(2048, 1024), (4, 3)])
def test_equals_a_loop_in_both_directions(blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TEXTS", blocks[0])
    monkeypatch.setattr(module, "_IMAGES", blocks[1])
    torch.manual_seed(1)
    images = F.normalize(torch.randn(7, 4), dim=1)
    images[5] = images[1]  # the same picture twice
    owner = torch.tensor([0, 0, 1, 2, 2, 2, 3, 4, 5, 5, 6, 6])
    texts = F.normalize(images[owner] + 0.8 * torch.randn(12, 4), dim=1)
    texts[8] = texts[2]  # and one caption for both of them
    for_text, for_image = pair_ranks(images, texts, owner)
    scores = [[round(float(text.double() @ image.double()), 7) for image in images] for text in texts]
    for text in range(12):
        order = sorted(range(7), key=lambda image: (-scores[text][image], image))
        assert int(for_text[text]) == order.index(int(owner[text]))
    for image in range(7):
        order = sorted(range(12), key=lambda text: (-scores[text][image], text))
        assert int(for_image[image]) == next(place for place, text in enumerate(order) if owner[text] == image)


def test_an_image_without_a_text_cannot_be_asked_for() -> None:
    with pytest.raises(DataError, match="image 2 has no text"):
        pair_ranks(torch.eye(3), torch.eye(3)[:2], torch.arange(2))
