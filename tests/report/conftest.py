"""A report with every part filled, built by hand: rendering needs no model and no file."""

import pytest

from eyesmith.report.content import (
    Confusion,
    Curve,
    DataFacts,
    Example,
    ExampleGroup,
    Gallery,
    Guess,
    Hit,
    Interval,
    Picture,
    ReportData,
    RunFacts,
    Score,
    Search,
    SourceFacts,
    SplitFacts,
    StyleScore,
)

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def picture() -> Picture:
    return Picture(data=b"RIFFxxxxWEBP", media_type="image/webp", width=72, height=72)


@pytest.fixture
def report(picture: Picture) -> ReportData:
    example = Example(
        picture=picture,
        truth=HOSTILE,
        style='"><img src=x onerror=alert(1)>',
        guesses=(
            Guess(name=HOSTILE, probability=0.75, is_true=True),
            Guess(name="goat & kid", probability=0.25, is_true=False),
        ),
    )

    def facts(role: str, name: str) -> RunFacts:
        return RunFacts(
            role=role,  # type: ignore[arg-type]
            name=name,
            folder="runs/it's here",
            is_finished=True,
            image_params=2_512_345,
            text_params=22_713_216,
            trained_params=2_512_346,
            image_size_px=(48, 48),
            train_time_s=336.2,
            steps=1560,
            samples=101_790,
            epochs=130.0,
            images_per_s=302.4,
            versions=(("eyesmith", "1.2.3"),),
            machine=(("cores", "2"),),
            settings=(("epochs", "130"), ("odd", HOSTILE)),
        )

    def score(split: str, metric: str, value: float, task: str = "zero_shot") -> Score:
        return Score(
            task=task,
            split=split,
            metric=metric,
            ours=Interval(value=value, low=value - 0.05, high=value + 0.05),
            baseline=Interval(value=0.0646, low=0.05, high=0.09),
            chance=1 / 262,
            num_samples=262,
        )

    evaluations = {"unseen_drawing/acc1": ((60.0, 0.1), (336.0, 0.3817))}
    return ReportData(
        ours=facts("ours", "ViTamin-Nano"),
        baseline=facts("baseline", "ViT-Nano"),
        data=DataFacts(
            name="emoji",
            folder="data/emoji",
            maker="emoji",
            num_classes=291,
            splits=(SplitFacts(name="train", num_samples=783, num_classes=262),),
            sources=(
                SourceFacts(
                    name="noto", version="1.2.9", licence="Apache-2.0", author="Google", url="https://example.org/a"
                ),
                SourceFacts(name="bad", version="1", licence="MIT", author="x", url="javascript:alert(1)"),
            ),
            templates=("a photo of a {}.",),
            split_rule=HOSTILE,
        ),
        scores=(
            score("unseen_concept", "acc1", 0.2),
            score("unseen_drawing", "acc1", 0.3817),
            score("unseen_drawing", "acc5", 0.59),
            score("unseen_drawing", "image_retrieval_recall@5", 0.4, "retrieval"),
        ),
        curves=(
            Curve(role="ours", name="ViTamin-Nano", loss=((1.0, 5.0), (336.0, 0.4)), evaluations=evaluations),
            Curve(role="baseline", name="ViT-Nano", loss=((1.0, 5.0), (330.0, 1.4))),
        ),
        gallery=Gallery(
            split="unseen_drawing",
            num_classes=262,
            groups=(
                ExampleGroup(outcome="first", total=100, examples=(example,)),
                ExampleGroup(outcome="top5", total=0, examples=()),
                ExampleGroup(outcome="missed", total=162, examples=(example,)),
            ),
        ),
        style_split="unseen_drawing",
        styles=(
            StyleScore(style="noto", num_samples=66, ours=Interval(value=0.5, low=0.4, high=0.6)),
            StyleScore(style="openmoji", num_samples=65, ours=Interval(value=0.25, low=0.2, high=0.3)),
        ),
        search_pool="unseen drawings",
        search_pool_size=378,
        searches=(
            Search(query=HOSTILE, is_class_name=False, hits=(Hit(picture=picture, name="tea\x00", cosine=0.61),)),
        ),
        confusions=(
            Confusion(
                truth="goat",
                guess="ram",
                count=2,
                guess_probability=0.9,
                truth_probability=0.05,
                picture=picture,
                guess_picture=None,
            ),
        ),
        num_confusions=17,
        notices=(f"something is missing {HOSTILE}",),
    )
