"""A kind of one's own: is the right class ahead of every other by a margin? Its set lies in the usual layout."""

import numpy as np
import torch

from eyesmith.eval.kinds import Answered, Asked, Kind, Metrics, PairedValues, Records, Span
from eyesmith.eval.kinds.kind import check_same, share, text_array, wilson
from eyesmith.eval.sets import Task
from eyesmith.eval.statistics.metrics import similarity

MARGIN = 0.02  # of the cosine


class Margin(Kind):
    name = "margin"
    arrays = ("keys", "margin")
    main = "acc_margin"

    def answer(self, asked: Asked) -> Answered:
        rows = torch.tensor(asked.images.indices)
        targets = torch.from_numpy(asked.found.labels)[rows][:, None]
        weights = asked.texts.class_weights(asked.found.classes, asked.found.templates)
        scores = similarity(asked.images.features, weights)  # [N, K]
        best = scores.scatter(1, targets, -torch.inf).amax(1)
        margin = scores.gather(1, targets)[:, 0] - best
        return Answered(records={"keys": text_array(asked.images.keys), "margin": margin.numpy()})

    def metrics(self, task: Task, records: Records) -> Metrics:
        return {"acc_margin": share(_is_ahead(records))}

    def spans(self, task: Task, records: Records) -> dict[str, Span]:
        return {"acc_margin": wilson(_is_ahead(records))}

    def paired(self, task: Task | None, one: Records, other: Records, metric: str) -> PairedValues:
        check_same(one, other, "keys")
        left, right = (_is_ahead(records).double().numpy() for records in (one, other))
        return PairedValues(name="acc_margin", left=left, right=right)


def _is_ahead(records: Records) -> torch.Tensor:
    return torch.from_numpy(np.asarray(records["margin"]) > MARGIN)


KIND = Margin()
TASK = Task(
    key="mine/margin",
    name="Pets by a margin",
    size=None,
    metric="acc_margin",
    kind="margin",
    folder="wds_vtab-pets_test",
)
