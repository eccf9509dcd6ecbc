import pytest

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.errors import DataError


@pytest.fixture
def folders(tmp_path, picture):
    root = tmp_path / "pets"
    for number, name in enumerate(("red_fox", "red_fox", "hound", "cat")):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / f"{number}.png").write_bytes(picture(number))
    return root


def test_class_folders_are_a_set(folders):
    found = open_evaluation_set(folders)
    assert (found.layout, found.classes, found.templates) == ("classification", ("cat", "hound", "red fox"), ())
    assert found.labels.tolist() == [0, 1, 2, 2]
    assert list(found.source.keys) == ["cat/3.png", "hound/2.png", "red_fox/0.png", "red_fox/1.png"]


def test_names_and_templates_may_lie_beside_the_class_folders(folders):
    (folders / "classnames.txt").write_text("house cat\ndog\nfox\n")
    (folders / "zeroshot_classification_templates.txt").write_text("a {c}\n")
    found = open_evaluation_set(folders)
    assert (found.classes, found.templates) == (("house cat", "dog", "fox"), ("a {c}",))


def test_a_test_folder_of_class_folders_is_found(folders):
    root = folders.parent / "split"
    root.mkdir()
    folders.rename(root / "test")
    assert open_evaluation_set(root).classes == ("cat", "hound", "red fox")


def test_an_empty_class_is_named(folders):
    (folders / "zebra").mkdir()
    (folders / "zebra" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"zebra/ a class folder without images; add some or delete the folder"):
        open_evaluation_set(folders)
    assert [one.kind for one in open_evaluation_set(folders, is_strict=False).problems] == ["empty_class"]


def test_one_class_is_refused(tmp_path, picture):
    (tmp_path / "set" / "cat").mkdir(parents=True)
    (tmp_path / "set" / "cat" / "1.png").write_bytes(picture(1))
    with pytest.raises(DataError, match="only one class, 'cat'"):
        open_evaluation_set(tmp_path / "set")


def test_equal_class_names_are_refused(folders, picture):
    (folders / "Red fox").mkdir()
    (folders / "Red fox" / "9.png").write_bytes(picture(9))
    with pytest.raises(DataError, match="'red fox'; no text can tell them apart"):
        open_evaluation_set(folders)


def test_images_without_classes_and_an_empty_folder_are_refused(tmp_path, picture):
    (tmp_path / "1.png").write_bytes(picture(1))
    with pytest.raises(DataError, match="no class folders and no captions"):
        open_evaluation_set(tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        open_evaluation_set(tmp_path / "none")


def test_a_table_with_labels(folders):
    table = folders / "list.csv"
    table.write_text("path,class\ncat/3.png,cat\nhound/2.png,hound\nred_fox/0.png,cat\n")
    found = open_evaluation_set(table)
    assert (found.classes, found.labels.tolist(), found.layout) == (("cat", "hound"), [0, 1, 0], "classification")


def test_numbers_in_a_table_are_indices_of_the_names_beside_it(folders):
    table = folders / "list.csv"
    table.write_text("image,label\ncat/3.png,2\nhound/2.png,0\n")
    (folders / "classnames.txt").write_text("a\nb\nc\n")
    found = open_evaluation_set(table)
    assert (found.classes, found.labels.tolist()) == (("a", "b", "c"), [2, 0])
    table.write_text("image,label\ncat/3.png,3\nhound/2.png,0\n")
    with pytest.raises(DataError, match="label 3 is out of range"):
        open_evaluation_set(table)


def test_a_table_with_captions_is_for_retrieval(folders):
    table = folders / "list.csv"
    table.write_text("image,caption\ncat/3.png,a cat\ncat/3.png,one cat\nhound/2.png,a hound\n")
    found = open_evaluation_set(table)
    assert (found.layout, found.captions(0), found.captions(1)) == ("retrieval", ("a cat", "one cat"), ("a hound",))


@pytest.mark.parametrize(
    ("header", "message"),
    [("image,colour", "no label column; expected one of label"), ("x,label", "no image column; expected one of image")],
)
def test_a_table_without_its_columns_is_refused(folders, header, message):
    table = folders / "list.csv"
    table.write_text(f"{header}\ncat/3.png,a\n")
    with pytest.raises(DataError, match=message):
        open_evaluation_set(table)


def test_a_table_row_without_its_image_is_refused(folders):
    table = folders / "list.csv"
    table.write_text("image,label\ncat/3.png,a\nhound/2.png,b\ngone.png,b\n")
    with pytest.raises(DataError, match=r"line 4 gone.png no such image"):
        open_evaluation_set(table)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"expected a folder, or a table"):
        open_evaluation_set(tmp_path / "x.zip")


@pytest.mark.parametrize("label", ["-1", "0.5", "²", "3", "nan", "1e9"])
def test_a_number_that_is_no_place_among_the_names_is_refused(folders, label):
    table = folders / "list.csv"
    table.write_text(f"image,label\ncat/3.png,{label}\nhound/2.png,0\n", encoding="utf-8")
    (folders / "classnames.txt").write_text("a\nb\nc\n")
    with pytest.raises(DataError, match=r"out of range or not whole, .*has 3 names"):
        open_evaluation_set(table)


def test_whole_numbers_are_places_however_they_are_written(folders):
    table = folders / "list.csv"
    table.write_text("image,label\ncat/3.png,2.0\nhound/2.png,0.0\n")
    (folders / "classnames.txt").write_text("a\nb\nc\n")
    found = open_evaluation_set(table)
    assert (found.classes, found.labels.tolist()) == (("a", "b", "c"), [2, 0])
