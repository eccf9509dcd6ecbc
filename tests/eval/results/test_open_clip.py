"""open_clip's published tables: rows of them are read, and their averages come out of their per-task columns."""

import shutil
from pathlib import Path

import pytest

from eyesmith.errors import DataError
from eyesmith.eval.results import ModelResults, read_open_clip_csv, write_results_csv, write_retrieval_csv
from eyesmith.eval.results.open_clip import RETRIEVAL_COLUMNS
from eyesmith.eval.sets import SUITES, aggregate

# lines of the published tables: 16 digits of the average, four of each task
SAMPLE = Path(__file__).with_name("openclip_results_sample.csv")
HEADER, *ROWS = SAMPLE.read_text().splitlines()
RETRIEVAL_SAMPLE = Path(__file__).with_name("openclip_retrieval_results_sample.csv")
RETRIEVAL_HEADER, RETRIEVAL_ROW = RETRIEVAL_SAMPLE.read_text().splitlines()
# dist. shifts, VTAB and retrieval of the same models, as the ViTamin paper's Table 3 prints them
TABLE_3 = {
    "ViT-L-14": (0.679, 0.652, 0.608),
    "EVA02-L-14": (0.689, 0.628, 0.633),
    "EVA02-L-14-336": (0.709, 0.632, 0.635),
    "ViT-bigG-14": (0.691, 0.646, 0.635),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return Path(shutil.copy(SAMPLE, tmp_path))


def test_the_averages_of_published_rows_come_out_of_their_columns(table: Path) -> None:
    models = read_open_clip_csv(table)
    assert len(models) == 6
    for model, line in zip(models, ROWS, strict=True):
        got = aggregate("datacomp", model.main_values(SUITES["datacomp"]))
        assert got["average"] == pytest.approx(float(line.split(",")[2]), abs=2e-5), model.full_name
        if model.model in TABLE_3:
            printed = TABLE_3[model.model]
            assert [got[name] for name in ("shift", "vtab", "retrieval")] == pytest.approx(printed, abs=6e-4)


def test_the_table_is_written_as_it_was_read(table: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    write_results_csv(again, read_open_clip_csv(table))
    header, *lines = again.read_text().splitlines()
    assert header == HEADER.replace("pretrained,", "pretrained,params (M),FLOPs (B),")
    for line, source in zip(lines, ROWS, strict=True):
        cells, given = line.split(","), source.split(",")
        assert cells[:2] == given[:2]
        assert float(cells[4]) == pytest.approx(float(given[2]), abs=6e-5)
        assert cells[5:] == given[3:]


def test_the_table_of_35_leaves_retrieval_out(table: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.csv"
    write_results_csv(again, read_open_clip_csv(table), count=35)
    header, *lines = again.read_text().splitlines()
    assert len(header.split(",")) == 5 + 35
    assert "Flickr" not in header
    averages = {line.split(",")[0]: line.split(",")[4] for line in lines}
    # of the published table of 35
    assert averages["EVA02-L-14-336"] == "0.6603"
    assert averages["ViT-L-14"] == "0.6674"


def test_the_retrieval_table(tmp_path: Path) -> None:
    assert list(RETRIEVAL_COLUMNS) == RETRIEVAL_HEADER.split(",")[5:]
    (model,) = read_open_clip_csv(RETRIEVAL_SAMPLE)
    values = model.main_values(SUITES["retrieval"])
    assert list(values.values()) == pytest.approx([0.8381, 0.5605, 0.5053])  # the columns of the table of 38
    assert model.facts == {"params_m": 428.08, "gmacs": pytest.approx(197.58)}
    again = tmp_path / "again.csv"
    write_retrieval_csv(again, [model])
    cells = again.read_text().splitlines()[1].split(",")
    assert cells[:2] + cells[4:] == RETRIEVAL_ROW.split(",")[:2] + RETRIEVAL_ROW.split(",")[4:]
    assert cells[2:4] == ["428.08", "395.16"]


def test_a_row_with_a_hole_is_not_written(tmp_path: Path, table: Path) -> None:
    one = read_open_clip_csv(table)[0]
    holed = ModelResults(
        model="holed", source="", records={key: record for key, record in one.records.items() if key != "wilds/fmow"}
    )
    with pytest.raises(DataError, match="holed: 1 of 38 tasks are missing: FMoW"):
        write_results_csv(tmp_path / "x.csv", [holed])
    with pytest.raises(DataError, match="holed: Flickr has no image_retrieval_recall@1"):
        write_retrieval_csv(tmp_path / "x.csv", [holed])
    assert not (tmp_path / "x.csv").exists()


def test_a_cell_that_is_no_number_is_named(table: Path) -> None:
    table.write_text(table.read_text().replace("0.8009", "eighty"))
    with pytest.raises(DataError, match="line 2, ImageNet 1k: expected a number, got 'eighty'"):
        read_open_clip_csv(table)


def test_a_cell_of_nan_is_a_hole(table: Path) -> None:
    table.write_text(table.read_text().replace("0.8009", "nan", 1))
    record = read_open_clip_csv(table)[0].records.get("imagenet1k")
    assert record is None
