"""Tasks beside DataComp's: EVA-02's two extra sets, ImageNet-ReaL, multi-label VOC, videos, and corrected variants."""

import dataclasses

from eyesmith.eval.sets.datacomp import DATACOMP
from eyesmith.eval.sets.task import Task

OTHER_REGION = 5  # of the six regions of FMoW: four images that the WILDS metric leaves out

EVA02_EXTRA: tuple[Task, ...] = (
    Task(  # the copies in use differ in size, so nobody checks it
        key="birdsnap",
        name="Birdsnap",
        size=None,
        num_classes=500,
        folder="wds_birdsnap_test",
    ),
    Task(
        key="fer2013",
        name="FER2013",
        size=None,
        num_classes=7,
        folder="wds_fer2013_test",
        hub="clip-benchmark/wds_fer2013",
        prompts="fer2013",
        class_list="fer2013",
    ),
)

IMAGENET_EXTRA: tuple[Task, ...] = (
    Task(  # right when the first guess is one of the image's labels; images without a label are left out
        key="imagenet-real",
        name="ImageNet-ReaL",
        size=None,
        num_classes=1000,
        layout="multilabel",
        kind="any_label",
        folder="wds_imagenet-real_test",
        prompts="imagenet1k",
        class_list="imagenet1k",
    ),
)

MULTILABEL: tuple[Task, ...] = (
    Task(
        key="voc2007_multilabel",
        name="Pascal VOC 2007 (multi-label)",
        size=4952,
        num_classes=20,
        metric="mean_average_precision",
        layout="multilabel",
        folder="wds_voc2007_multilabel_test",
        hub="clip-benchmark/wds_voc2007_multilabel",
        prompts="voc2007_multilabel",
    ),
)


def _kinetics(num_classes: int) -> Task:
    return Task(  # videos vanish, so everybody's copy has another size
        key=f"video/kinetics{num_classes}",
        name=f"Kinetics-{num_classes}",
        size=None,
        num_classes=num_classes,
        metric="mean_acc1_acc5",
        layout="video",
        folder=f"video_kinetics{num_classes}_test",
    )


VIDEO: tuple[Task, ...] = (
    Task(  # first of the three test splits
        key="video/ucf101",
        name="UCF-101",
        size=3783,
        num_classes=101,
        layout="video",
        folder="video_ucf101_test",
    ),
    _kinetics(400),
    _kinetics(600),
    _kinetics(700),
)

CORRECTED: tuple[Task, ...] = (
    dataclasses.replace(  # as WILDS defines it: the worst of the five named regions
        next(task for task in DATACOMP if task.key == "wilds/fmow"),
        key="wilds/fmow-official",
        name="FMoW (WILDS)",
        left_out=(OTHER_REGION,),
    ),
)
