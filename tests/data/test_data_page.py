import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "data.md"


def test_blocks_of_the_page_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)


def test_every_kind_of_finding_is_on_the_page():
    sources = "".join(path.read_text("utf-8") for path in (PAGE.parents[1] / "src/eyesmith/data").glob("*.py"))
    pattern = r'(?:Finding|problem|finding|_RowError|_pair|faults\.append\()\(?\(?"([a-z0-9_]+)"'
    kinds = set(re.findall(pattern, sources))
    assert len(kinds) > 15
    page = PAGE.read_text("utf-8")
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()
