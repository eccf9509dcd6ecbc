import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from eyesmith.data.evaluation import open_evaluation_set
from eyesmith.data.evaluation.fetch import Hub, fetch_evaluation_set, fetch_file
from eyesmith.errors import DataError, EyesmithError

REPO = "owner/wds_own_test"


class _Server(ThreadingHTTPServer):
    """A hub of one repository, whose large files lie at another host, with faults on demand."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None, str | None]] = []  # path, Range, Authorization
        self.cut_after: list[int] = []  # bytes after which the next answers with a body of a tar end
        self.wrong: set[str] = set()  # files whose content is not that of their pointer
        self.status: dict[str, list[int]] = {}  # statuses of the next answers
        self.knows_ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        server = self.server
        server.requests.append((self.path, self.headers["Range"], self.headers["Authorization"]))
        if server.status.get(self.path):
            self.send_error(server.status[self.path].pop(0))
            return
        prefix = f"/datasets/{REPO}/"
        kind, _, rest = self.path.removeprefix(prefix).partition("/")
        name = rest.partition("/")[2]
        if self.path.startswith("/store/"):
            self._send(server.files[self.path.removeprefix("/store/")], is_large=True)
        elif not self.path.startswith(prefix) or name not in server.files:
            self.send_error(404)
        elif name.endswith(".tar") and kind == "resolve":
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{server.server_port}/store/{name}")
            self.end_headers()
        elif name.endswith(".tar"):
            content = server.files[name]
            digest = hashlib.sha256(b"other" if name in server.wrong else content).hexdigest()
            pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(content)}\n"
            self._send(pointer.encode())
        else:
            self._send(server.files[name])

    def _send(self, content: bytes, *, is_large: bool = False) -> None:
        start = 0
        if self.headers["Range"] and self.server.knows_ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
        else:
            self.send_response(200)
        body = content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if is_large and self.server.cut_after:
            body = body[: self.server.cut_after.pop(0)]
            self.close_connection = True
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(labelled) -> Iterator[_Server]:
    server = _Server()
    for file in labelled.rglob("*"):
        if file.is_file():
            server.files[file.relative_to(labelled).as_posix()] = file.read_bytes()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def hub(server, monkeypatch) -> Hub:
    monkeypatch.setenv("HF_TOKEN", "secret")
    return Hub(endpoint=server.url, wait_s=0.01, timeout_s=5)


def _tars(server: _Server) -> list[tuple[str, str | None, str | None]]:
    return [request for request in server.requests if request[0].startswith("/store/")]


def test_a_whole_set_comes_and_opens(server, hub, labelled, tmp_path):
    seen = []
    fetched = fetch_evaluation_set(REPO, tmp_path / "set", hub=hub, on_bytes=lambda *facts: seen.append(facts))
    files = {file.relative_to(labelled).as_posix() for file in labelled.rglob("*") if file.is_file()}
    assert set(fetched.files) == files
    assert fetched.num_new == len(files) == 5
    assert fetched.num_bytes == sum(map(len, server.files.values()))
    assert {
        file.relative_to(tmp_path / "set").as_posix() for file in (tmp_path / "set").rglob("*") if file.is_file()
    } == files
    assert open_evaluation_set(tmp_path / "set").labels.tolist() == [0, 1, 2, 0, 2]
    size = len(server.files["test/1.tar"])
    assert ("1.tar", size, size) in seen


def test_a_second_time_nothing_large_comes(server, hub, tmp_path):
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    server.requests.clear()
    again = fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert (again.num_new, again.num_bytes) == (0, 0)
    assert not _tars(server)


def test_the_token_goes_to_the_hub_and_not_to_where_it_sends_us(server, hub, tmp_path):
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert {token for _, _, token in _tars(server)} == {None}
    assert {token for path, _, token in server.requests if path.startswith("/datasets/")} == {"Bearer secret"}


def test_a_cut_answer_is_continued_where_it_stopped(server, hub, tmp_path):
    server.cut_after = [700, 100]
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    ranges = [start for path, start, _ in _tars(server) if path.endswith("0.tar")]
    assert ranges == [None, "bytes=700-", "bytes=800-"]
    assert (tmp_path / "set" / "test" / "0.tar").read_bytes() == server.files["test/0.tar"]


def test_a_killed_fetch_goes_on(server, hub, tmp_path):
    class KilledError(Exception):
        pass

    def kill(file: str, done: int, total: int) -> None:
        raise KilledError

    server.cut_after = [700]
    with pytest.raises(KilledError):
        fetch_evaluation_set(REPO, tmp_path / "set", hub=hub, on_bytes=kill)
    assert not (tmp_path / "set" / "test" / "nshards.txt").exists()  # it comes last: the set is not whole
    assert not (tmp_path / "set" / "test" / "0.tar").exists()
    server.requests.clear()
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert _tars(server)[0][1] == "bytes=700-"
    assert open_evaluation_set(tmp_path / "set").labels.tolist() == [0, 1, 2, 0, 2]


def test_a_rest_of_another_version_is_thrown_away(server, hub, tmp_path):
    server.status["/store/test/0.tar"] = [500] * 4
    with pytest.raises(EyesmithError, match=r"cannot be fetched after 4 tries.*run the command again"):
        fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    part = tmp_path / "set" / "test" / ".0.tar.part"
    part.write_bytes(b"x" * 700)
    server.files["test/0.tar"] += b"\0" * 512  # the repository has changed since
    server.requests.clear()
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert _tars(server)[0][1] is None


def test_a_server_that_knows_no_ranges_sends_all_again(server, hub, tmp_path):
    server.cut_after, server.knows_ranges = [700], False
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert (tmp_path / "set" / "test" / "0.tar").read_bytes() == server.files["test/0.tar"]


def test_wrong_bytes_never_get_the_name(server, hub, tmp_path):
    server.wrong = {"test/1.tar"}
    with pytest.raises(DataError, match=r"1.tar: the bytes are not those of the repository"):
        fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    left = sorted(file.name for file in (tmp_path / "set" / "test").iterdir())
    assert left == ["0.tar"]


def test_a_damaged_file_on_the_disk_is_fetched_again(server, hub, tmp_path):
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    shard = tmp_path / "set" / "test" / "1.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    assert fetch_evaluation_set(REPO, tmp_path / "set", hub=hub).num_new == 1
    assert shard.read_bytes() == server.files["test/1.tar"]


def test_trouble_with_the_shard_count_is_no_set_of_one_shard(server, hub, tmp_path):
    path = f"/datasets/{REPO}/raw/main/test/nshards.txt"
    server.status[path] = [503, 503]
    fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)  # tried again
    server.status[path] = [503] * 4
    with pytest.raises(EyesmithError, match=r"nshards.txt: cannot be reached after 4 tries"):
        fetch_evaluation_set(REPO, tmp_path / "other", hub=hub)
    server.files["test/nshards.txt"] = b"9" * 12  # so many names would fill the memory
    with pytest.raises(DataError, match="expected the number of shards"):
        fetch_evaluation_set(REPO, tmp_path / "other", hub=hub)
    server.files["test/nshards.txt"] = b"<html>"
    with pytest.raises(DataError, match=r"nshards.txt: expected the number of shards, got '<html>'"):
        fetch_evaluation_set(REPO, tmp_path / "other", hub=hub)


def test_what_does_not_exist_or_may_not_be_read_is_said_at_once(server, hub, tmp_path):
    with pytest.raises(DataError, match=r"not there \(404\)"):
        fetch_evaluation_set("owner/nothing", tmp_path / "set", hub=hub)
    server.status[f"/datasets/{REPO}/raw/main/test/nshards.txt"] = [401]
    with pytest.raises(DataError, match=r"may not be read \(401\).*log in"):
        fetch_evaluation_set(REPO, tmp_path / "set", hub=hub)
    assert len(server.requests) == 2


def test_only_addresses_of_the_web_are_opened(tmp_path):
    (tmp_path / "secret.parquet").write_bytes(b"PAR1")
    for address in ((tmp_path / "secret.parquet").as_uri(), "data:,PAR1", "ftp://127.0.0.1/x", str(tmp_path)):
        with pytest.raises(DataError, match="begins with https"):
            fetch_file(Hub(), address, tmp_path / "x.parquet", None, None)
    assert not (tmp_path / "x.parquet").exists()


def test_a_server_that_does_not_answer(tmp_path):
    with pytest.raises(EyesmithError, match="Is the network up"):
        fetch_evaluation_set(REPO, tmp_path, hub=Hub(endpoint="http://127.0.0.1:9", wait_s=0.001))
