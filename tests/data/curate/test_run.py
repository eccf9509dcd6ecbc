"""Every plan against its rule written out as a loop over the rows of a pool that was read by pandas."""

import io
import json
import random
import re
import shutil
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from eyesmith.data.curate import curate, make_pool, mark_shards, named_plan, read_subset, write_marks
from eyesmith.data.curate.balance import draws
from eyesmith.data.curate.marks import Marks, mark_evaluation
from eyesmith.data.curate.plan import (
    BalanceRule,
    ClipRule,
    ClustersRule,
    CurationPlan,
    DecontaminateRule,
    DuplicatesRule,
    EntitiesRule,
    LanguageRule,
)
from eyesmith.data.curate.steps import _read_matcher
from eyesmith.data.curate.uids import format_uids, parse_uids
from eyesmith.data.make import make_miniatures
from eyesmith.errors import ConfigError, DataError, MissingDependencyError

Row = dict[str, Any]


def subset_of(out: Path) -> list[str]:
    return format_uids(np.array(read_subset(out / "subset.npy")))


def is_basic(row: Row) -> bool:
    short, long = sorted((row["original_width"], row["original_height"]))
    text = row["text"]
    return row["language"] == "en" and len(text.split()) > 2 and len(text) > 5 and short >= 200 and long / short <= 3.0


def is_captioned(row: Row) -> bool:
    tokens = re.findall(r"[^ \t\r\n\v\f\0]+|\n", row["text"])
    return row["language"] == "en" and len(tokens) > 1 and len(row["text"]) > 5


def clip_kept(rows: list[Row], fraction: float, arch: str = "l14") -> list[bool]:
    scores = [row[f"clip_{arch}_similarity_score"] for row in rows]
    threshold = sorted(scores, reverse=True)[int(len(scores) * fraction)]
    return [score >= threshold for score in scores]


@pytest.fixture(scope="module")
def clusters(pool: Any) -> ClustersRule:
    rng = np.random.default_rng(0)
    np.save(pool.folder / "centroids.npy", rng.normal(size=(12, 16)).astype(np.float32))
    np.save(pool.folder / "targets.npy", rng.normal(size=(5, 16)).astype(np.float16))
    return ClustersRule(centroids=str(pool.folder / "centroids.npy"), targets=str(pool.folder / "targets.npy"))


@pytest.fixture(scope="module")
def wordnet(pool: Any) -> EntitiesRule:
    folder = pool.folder / "dict"
    folder.mkdir()
    for part in ("verb", "adj", "adv"):
        (folder / f"index.{part}").write_text("photo v 1 0 1 1 00000009\n" if part == "verb" else "")
    (folder / "index.noun").write_text("dog n 1 0 1 1 02084071\nbird n 1 0 1 1 01503061\nsea n 1 0 1 1 09426788\n")
    (pool.folder / "ids.txt").write_text("n02084071\nn09426788\nn00000009\n")
    return EntitiesRule(wordnet=str(folder), synsets=str(pool.folder / "ids.txt"))


def in_clusters(rows: list[Row], rule: ClustersRule) -> list[bool]:
    centroids, targets = np.load(rule.centroids).astype(float), np.load(rule.targets).astype(float)
    wanted = {int(np.argmax(centroids @ target)) for target in targets}
    return [int(np.argmax(centroids @ row["features"]["l14_img"].astype(float))) in wanted for row in rows]


def has_entity(row: Row) -> bool:
    words = [word.lower() for word in row["text"].split()]
    return row["language"] == "en" and any(w in ("dog", "sea", "photo", "dogs", "seas") for w in words)


def test_every_row_plan_equals_a_loop(pool: Any, clusters: ClustersRule, wordnet: EntitiesRule, tmp_path: Path) -> None:
    rows = pool.rows
    best, near = clip_kept(rows, 0.3), in_clusters(rows, clusters)
    image = [is_captioned(row) and one for row, one in zip(rows, near, strict=True)]
    text = [has_entity(row) for row in rows]
    expected = {
        "no-filter": [True] * len(rows),
        "basic": [is_basic(row) for row in rows],
        "clip-l14-30": best,
        "clip-b32-30": clip_kept(rows, 0.3, "b32"),
        "laion2b": [row["clip_b32_similarity_score"] >= np.float32(0.28) and row["language"] == "en" for row in rows],
        "text": text,
        "image": image,
        "image-and-clip": [a and b for a, b in zip(image, best, strict=True)],
        "text-and-clip": [a and b for a, b in zip(text, best, strict=True)],
        "image-and-text": [a and b for a, b in zip(image, text, strict=True)],
        "basic-and-clip": [is_basic(row) and one for row, one in zip(rows, best, strict=True)],
    }
    for name, kept in expected.items():
        report = curate(named_plan(name, clusters=clusters, entities=wordnet), pool.metadata, tmp_path / name)
        uids = sorted(row["uid"] for row, one in zip(rows, kept, strict=True) if one)
        assert len(uids) > 0, name
        assert subset_of(tmp_path / name) == uids, name
        assert (report.samples, report.kept, report.rows) == (len(rows), len(uids), len(uids))
        record = pd.read_parquet(tmp_path / name / "kept.parquet")
        assert sorted(record["uid"]) == uids


def test_the_record_says_where_every_sample_comes_from(pool: Any, tmp_path: Path) -> None:
    report = curate(named_plan("basic-and-clip"), pool.metadata, tmp_path / "out")
    by_uid = {row["uid"]: row for row in pool.rows}
    record = pd.read_parquet(tmp_path / "out" / "kept.parquet").to_dict("records")
    assert len(record) == report.kept
    for kept in record:
        source = pd.read_parquet(pool.metadata / kept["source"]).iloc[kept["row"]]
        assert source["uid"] == kept["uid"]
        assert kept["clip_l14_similarity_score"] == by_uid[kept["uid"]]["clip_l14_similarity_score"]
        assert (kept["rule"], kept["multiplicity"]) == ("clip+language+words+size", 1)
    rules = [(row.rule, row.dropped) for row in report.funnel]
    assert [rule for rule, _ in rules] == ["clip", "language", "words", "size"]
    assert sum(dropped for _, dropped in rules) == report.samples - report.kept
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["kept"] == report.kept
    assert saved["captions"]["pool"]["captions"] == len(pool.rows)


def test_clip_threshold_is_used_as_given(pool: Any, tmp_path: Path) -> None:
    plan = named_plan("clip-l14-30", clip=ClipRule(by="threshold", threshold=0.25))
    curate(plan, pool.metadata, tmp_path / "out")
    expected = sorted(r["uid"] for r in pool.rows if r["clip_l14_similarity_score"] >= np.float32(0.25))
    assert subset_of(tmp_path / "out") == expected


def naive_balance(pool: Any, rule: BalanceRule, rows: list[Row]) -> tuple[Counter[int], list[str]]:
    entries = json.loads(pool.entries.read_text())
    matched = []
    for row in rows:
        text = " " + row["text"].replace("\n", " ") + " "
        for mark in ",.;:?!`":
            text = text.replace(mark, f" {mark} ")
        matched.append([e for e, entry in enumerate(entries) if f" {entry} " in text])
    counts = Counter(entry for found in matched for entry in found)
    hashes = _read_matcher(str(pool.entries), 0, "spaces").hashes
    kept = []
    for row, found in zip(rows, matched, strict=True):
        uid = parse_uids([row["uid"]])
        for entry in found:
            value = draws(rule.seed, uid["f0"], uid["f1"], np.zeros(1, np.int64), hashes[entry : entry + 1])[0]
            if np.isinf(rule.threshold) or value < rule.threshold / max(counts[entry], rule.threshold):
                kept.append(row["uid"])
                break
    return counts, sorted(kept)


@pytest.mark.parametrize("threshold", [1.0, 20.0, float("inf")])
def test_balancing_equals_a_loop(pool: Any, tmp_path: Path, threshold: float) -> None:
    rule = BalanceRule(entries=str(pool.entries), threshold=threshold, seed=4)
    report = curate(named_plan("metaclip", balance=rule), pool.metadata, tmp_path / "out")
    counts, kept = naive_balance(pool, rule, pool.rows)
    found = np.load(tmp_path / "out" / "entry_counts.npy")
    assert {entry: count for entry, count in enumerate(found.tolist()) if count} == dict(counts)
    assert subset_of(tmp_path / "out") == kept
    assert report.balance is not None
    assert report.balance["matches"] == sum(counts.values())
    assert [row.rule for row in report.funnel] == ["match", "balance"]


def test_balancing_comes_after_filters_and_takes_a_tail_share(pool: Any, tmp_path: Path) -> None:
    rule = BalanceRule(entries=str(pool.entries), tail_share=0.2)
    plan = CurationPlan(rules=("language", "balance"), balance=rule)
    report = curate(plan, pool.metadata, tmp_path / "out")
    english = [row for row in pool.rows if row["language"] == "en"]
    assert report.balance is not None
    _, kept = naive_balance(pool, replace(rule, threshold=report.balance["threshold"]), english)
    assert subset_of(tmp_path / "out") == kept


def test_lists_of_captions_are_balanced_by_text_and_by_image(tmp_path: Path) -> None:
    rng = random.Random(0)
    uids = [f"{number:032x}" for number in range(400)]
    texts = [[rng.choice(["a dog", "a cat", "none"]) for _ in range(rng.randint(0, 3))] for _ in uids]
    pd.DataFrame({"uid": uids, "text": texts}).to_parquet(tmp_path / "0.parquet")
    (tmp_path / "entries.json").write_text('["dog", "cat"]')
    rule = BalanceRule(entries=str(tmp_path / "entries.json"), threshold=float("inf"))
    curate(named_plan("metaclip", balance=rule), tmp_path / "0.parquet", tmp_path / "text")
    record = pd.read_parquet(tmp_path / "text" / "kept.parquet")
    expected = {uid: [i for i, text in enumerate(t) if text != "none"] for uid, t in zip(uids, texts, strict=True)}
    assert {r["uid"]: list(r["texts"]) for r in record.to_dict("records")} == {u: t for u, t in expected.items() if t}
    assert len(read_subset(tmp_path / "text" / "subset.npy")) == sum(map(len, expected.values()))

    curate(named_plan("metaclip", balance=replace(rule, draw="image")), tmp_path / "0.parquet", tmp_path / "image")
    record = pd.read_parquet(tmp_path / "image" / "kept.parquet")
    assert (record["multiplicity"] == 1).all()
    assert set(record["uid"]) == {uid for uid, found in expected.items() if found}
    chosen = [(list(r["texts"]), expected[r["uid"]]) for r in record.to_dict("records")]
    assert all(len(one) == 1 and one[0] in found for one, found in chosen)
    assert 0.3 < np.mean([one[0] == found[0] for one, found in chosen if len(found) == 2]) < 0.7


def test_copies_are_dropped_by_their_features_and_the_best_stays(pool: Any, tmp_path: Path) -> None:
    rule = DuplicatesRule(min_similarity=0.99)
    report = curate(named_plan("duplicates", duplicates=rule), pool.metadata, tmp_path / "out")
    rows = pool.rows
    features = np.stack([row["features"]["l14_img"] for row in rows]).astype(float)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    near = features @ features.T >= 0.99
    group = list(range(len(rows)))
    for _ in range(8):
        group = [min(group[j] for j in np.flatnonzero(near[i])) for i in range(len(rows))]
    best: dict[int, Row] = {}
    for row, label in zip(rows, group, strict=True):
        key = (-row["clip_l14_similarity_score"], row["uid"])
        old = best.get(label)
        if old is None or key < (-old["clip_l14_similarity_score"], old["uid"]):
            best[label] = row
    assert report.kept < len(rows) * 0.97
    assert subset_of(tmp_path / "out") == sorted(row["uid"] for row in best.values())


def test_clusters_of_many_samples_drop_what_all_with_all_drops(pool: Any, tmp_path: Path) -> None:
    for name, limit in (("exact", 600), ("clusters", 599)):
        rule = DuplicatesRule(min_similarity=0.99, max_exact=limit)
        curate(named_plan("duplicates", duplicates=rule), pool.metadata, tmp_path / name)
    assert subset_of(tmp_path / "clusters") == subset_of(tmp_path / "exact")


def test_copies_and_evaluation_images_are_dropped_by_hash(pool: Any, tmp_path: Path) -> None:
    marks = mark_shards(pool.shards)
    write_marks(tmp_path / "pool.npz", marks)
    seen = format_uids(marks.uids)
    assert len(seen) < len(pool.rows)  # some pictures could not be fetched
    rule = DuplicatesRule(by="hash", marks=str(tmp_path / "pool.npz"), max_bits=2)
    report = curate(named_plan("duplicates", duplicates=rule), pool.metadata, tmp_path / "copies")
    assert len(seen) * 0.8 < report.kept < len(seen) * 0.98
    assert set(subset_of(tmp_path / "copies")) < set(seen)

    taken = seen[::10]
    write_marks(tmp_path / "eval.npz", Marks(marks.uids[:0], marks.hashes[::10], None))
    against = DecontaminateRule(by="hash", marks=str(tmp_path / "pool.npz"), against=(str(tmp_path / "eval.npz"),))
    curate(named_plan("decontaminate", decontaminate=against), pool.metadata, tmp_path / "clean")
    values = dict(zip(seen, marks.hashes.tolist(), strict=True))
    clean = [u for u in seen if all((values[u] ^ values[t]).bit_count() > 4 for t in taken)]
    assert subset_of(tmp_path / "clean") == sorted(clean)


def test_samples_without_a_uid_or_a_picture_are_counted_in_the_marks(pool: Any, tmp_path: Path) -> None:
    shard = sorted(pool.shards.glob("*.tar"))[0]
    (tmp_path / "0.tar").write_bytes(shard.read_bytes())
    with tarfile.open(tmp_path / "1.tar", "w") as tar:
        for name, content in (
            ("a.jpg", b"no picture"), ("a.json", json.dumps({"uid": "a" * 32}).encode()), ("b.jpg", b"x"),
            ("b.json", b'{"uid": "short"}'), ("c.json", json.dumps({"uid": "c" * 32}).encode()), ("d.jpg", b"x"),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    marks, whole = mark_shards(tmp_path), mark_shards(shard)
    assert (whole.num_broken, marks.num_broken) == (0, 4)
    assert marks.uids.tolist() == whole.uids.tolist()
    assert set(format_uids(marks.uids)) <= {row["uid"] for row in pool.rows}
    assert marks.hashes.tolist() == whole.hashes.tolist()


def test_repeated_uids_are_said(pool: Any, tmp_path: Path) -> None:
    table = pd.read_parquet(sorted(pool.metadata.glob("*.parquet"))[0])
    (tmp_path / "pool").mkdir()
    table.to_parquet(tmp_path / "pool" / "0.parquet")
    table[:7].to_parquet(tmp_path / "pool" / "1.parquet")
    report = curate(named_plan("no-filter"), tmp_path / "pool", tmp_path / "out")
    assert (report.kept, report.rows, report.repeated) == (len(table) + 7, len(table) + 7, 7)
    assert subset_of(tmp_path / "out") == sorted([*table["uid"], *table["uid"][:7]])


def test_evaluation_folders_are_marked(tmp_path: Path) -> None:
    folder = make_miniatures(tmp_path, ["vtab/dtd"])["vtab/dtd"]
    embedded: list[int] = []

    def embed(images: Any) -> np.ndarray:
        embedded.append(len(images))
        return np.ones((len(images), 3))

    marks = mark_evaluation(folder, embed=embed)
    assert len(marks.hashes) == sum(embedded) > 3
    assert marks.embeddings is not None
    assert marks.embeddings.shape == (len(marks.hashes), 3)


def test_a_stopped_curation_goes_on_and_another_is_refused(pool: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    curate(named_plan("basic"), pool.metadata, out)
    wanted = subset_of(out)
    first = sorted((out / "parts").glob("*.parquet"))
    times = {file: file.stat().st_mtime_ns for file in first}
    (out / "subset.npy").unlink()
    first[0].with_suffix(".json").unlink()  # as if this file had not been finished
    curate(named_plan("basic"), pool.metadata, out)
    assert subset_of(out) == wanted
    assert [file.stat().st_mtime_ns == times[file] for file in first] == [False, True, True]
    with pytest.raises(ConfigError, match="choose another --out"):
        curate(named_plan("no-filter"), pool.metadata, out)
    with pytest.raises(ConfigError, match="expected an empty folder"):
        curate(named_plan("basic"), pool.metadata, pool.metadata)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("executor", ["local", "ray"])
def test_two_workers_equal_one(pool: Any, tmp_path: Path, executor: Any) -> None:
    if executor == "ray":
        pytest.importorskip("ray.data")
    plan = CurationPlan(
        rules=("clip", "language", "words", "duplicates", "balance"),
        clip=ClipRule(fraction=0.8),
        duplicates=DuplicatesRule(min_similarity=0.99),
        balance=BalanceRule(entries=str(pool.entries), threshold=20),
    )
    one = curate(plan, pool.metadata, tmp_path / "one")
    two = curate(plan, pool.metadata, tmp_path / "two", workers=2, executor=executor)
    assert subset_of(tmp_path / "two") == subset_of(tmp_path / "one")
    pd.testing.assert_frame_equal(*(pd.read_parquet(tmp_path / name / "kept.parquet") for name in ("one", "two")))
    assert (one.funnel, one.balance, one.clip_threshold) == (two.funnel, two.balance, two.clip_threshold)


def test_the_order_of_files_and_rows_does_not_matter(pool: Any, tmp_path: Path) -> None:
    table = pd.concat([pd.read_parquet(file) for file in sorted(pool.metadata.glob("*.parquet"))])
    (tmp_path / "pool").mkdir()
    table.sample(frac=1, random_state=0).to_parquet(tmp_path / "pool" / "all.parquet")
    plan = named_plan("metaclip", balance=BalanceRule(entries=str(pool.entries), threshold=20))
    curate(plan, pool.metadata, tmp_path / "a")
    curate(plan, tmp_path / "pool", tmp_path / "b")
    assert subset_of(tmp_path / "a") == subset_of(tmp_path / "b")


def test_a_missing_language_says_what_to_give(pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"language.model"):
        curate(named_plan("basic", language=LanguageRule(column="none")), pool.metadata, tmp_path / "a")
    monkeypatch.setitem(__import__("sys").modules, "fasttext", None)
    with pytest.raises(MissingDependencyError, match=r"eyesmith\[language\]"):
        rule = LanguageRule(column="none", model="some-lid.bin")
        curate(named_plan("basic", language=rule), pool.metadata, tmp_path / "b")


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({"name": "text"}, "entities.wordnet"),
        ({"name": "metaclip"}, "balance.entries"),
        ({"name": "image"}, "clusters.centroids"),
        ({"name": "decontaminate"}, "decontaminate.against"),
    ],
)
def test_a_plan_without_its_files_says_so(pool: Any, tmp_path: Path, plan: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        curate(named_plan(plan["name"]), pool.metadata, tmp_path / "out")


def test_plans_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean basic"):
        named_plan("basik")
    with pytest.raises(ConfigError, match="did you mean language"):
        CurationPlan(rules=("langage",))
    with pytest.raises(ConfigError, match="last, in this order"):
        CurationPlan(rules=("balance", "language"))
    with pytest.raises(ConfigError, match="max_exact"):
        named_plan("duplicates", duplicates=DuplicatesRule(max_exact=-1))
    with pytest.raises(ConfigError, match="stands twice"):
        CurationPlan(rules=("clip", "clip"))


def test_pools_that_cannot_be_read_are_named(pool: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such pool"):
        curate(named_plan("basic"), tmp_path / "none", tmp_path / "out")
    folder = tmp_path / "pool"
    made = make_pool(folder, samples=50, files=1, seed=1)
    npz = next(made.metadata.glob("*.npz"))
    (tmp_path / "two").mkdir()
    for number, width in enumerate((16, 8)):
        (tmp_path / "two" / f"{number}.parquet").write_bytes(next(made.metadata.glob("*.parquet")).read_bytes())
        np.savez(tmp_path / "two" / f"{number}.npz", l14_img=np.ones((50, width), np.float16))
    with pytest.raises(DataError, match=r"1\.npz: features of another size"):
        curate(named_plan("duplicates"), tmp_path / "two", tmp_path / "d")
    np.savez(npz, l14_img=np.zeros((49, 4), np.float16))
    with pytest.raises(DataError, match="49 rows"):
        curate(named_plan("duplicates"), made.metadata, tmp_path / "a")
    npz.unlink()
    with pytest.raises(DataError, match="beside the metadata"):
        curate(named_plan("duplicates"), made.metadata, tmp_path / "b")
    next(made.metadata.glob("*.parquet")).write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        curate(named_plan("basic"), made.metadata, tmp_path / "c")


def test_a_plan_that_keeps_nothing_says_which_rule(pool: Any, tmp_path: Path) -> None:
    plan = named_plan("basic", language=LanguageRule(keep="fr"))
    with pytest.raises(DataError, match="language 600 -> 0"):
        curate(plan, pool.metadata, tmp_path / "out")


def test_changed_entries_are_another_curation(pool: Any, tmp_path: Path) -> None:
    entries = tmp_path / "entries.json"
    entries.write_text('["dog"]')
    plan = named_plan("metaclip", balance=BalanceRule(entries=str(entries)))
    first = curate(plan, pool.metadata, tmp_path / "out")
    entries.write_text('["dog", "cat"]')
    with pytest.raises(ConfigError, match="a file of its rules has changed"):
        curate(plan, pool.metadata, tmp_path / "out")
    assert curate(plan, pool.metadata, tmp_path / "again").kept > first.kept
    with pytest.raises(DataError, match="no column 'caption'"):
        curate(CurationPlan(rules=("balance",), text="caption", balance=plan.balance), pool.metadata, tmp_path / "b")


def test_changed_features_are_another_curation(pool: Any, clusters: ClustersRule, tmp_path: Path) -> None:
    metadata = tmp_path / "metadata"
    shutil.copytree(pool.metadata, metadata)
    plan = CurationPlan(rules=("clusters",), clusters=clusters)
    first = curate(plan, metadata, tmp_path / "out")
    curate(CurationPlan(), metadata, tmp_path / "all")
    for file in metadata.glob("*.npz"):  # of another encoder, say
        with np.load(file) as stored:
            turned = {name: np.roll(stored[name], 1, axis=1) for name in stored.files}
        np.savez(file, **turned)
    with pytest.raises(ConfigError, match="its pool or a file of its rules has changed"):
        curate(plan, metadata, tmp_path / "out")
    assert curate(plan, metadata, tmp_path / "again").kept != first.kept
    curate(CurationPlan(), metadata, tmp_path / "all")  # reads none
