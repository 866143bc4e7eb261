"""Downloads from a server on this machine: checksums, broken lines, and what is said without a network."""
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from data import download
from data.text import DataError

CONTENT = bytes(range(256)) * 400
DICTIONARY = "dictionaries/muse/en-de.txt"


@pytest.fixture
def server():
    """Serves CONTENT with ranges; server.asked lists the ranges, server.cut breaks the first answer off."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            at = self.headers.get("Range")
            here.asked.append(at)
            if self.path != "/file":
                return self.send_error(404)
            start = int(at.split("=")[1][:-1]) if at else 0
            if start >= len(CONTENT):
                return self.send_error(416)
            self.send_response(206 if at else 200)
            self.send_header("Content-Length", str(len(CONTENT) - start))
            self.end_headers()
            part, here.cut = CONTENT[start:][:here.cut], None
            self.wfile.write(part)

        def log_message(self, *_):
            pass

    here = HTTPServer(("127.0.0.1", 0), Handler)
    here.asked, here.cut = [], None
    here.url = f"http://127.0.0.1:{here.server_port}"
    threading.Thread(target=here.serve_forever, args=(0.01,), daemon=True).start()
    yield here
    here.shutdown()
    here.server_close()


def test_a_broken_download_goes_on_where_it_stopped(tmp_path, server):
    path, server.cut = tmp_path / "a" / "file", 30_000
    with pytest.raises(DataError, match="cannot be reached.*goes on where it stopped.*--from-dir"):
        download.fetch(f"{server.url}/file", path, quiet=True)
    assert not path.exists() and path.with_name("file.part").stat().st_size == 30_000
    download.fetch(f"{server.url}/file", path, quiet=True)
    assert path.read_bytes() == CONTENT and server.asked == [None, "bytes=30000-"]
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_download_that_was_whole_only_gets_its_name(tmp_path, server):
    (tmp_path / "file.part").write_bytes(CONTENT)
    download.fetch(f"{server.url}/file", tmp_path / "file", quiet=True)
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_missing_file_and_a_missing_network_get_one_line(tmp_path, server):
    with pytest.raises(DataError, match="nothing: 404 .*by hand"):
        download.fetch(f"{server.url}/nothing", tmp_path / "file", quiet=True)
    with pytest.raises(DataError, match="cannot be reached .*again with a network") as error:
        download.fetch("http://127.0.0.1:9/file", tmp_path / "file", quiet=True)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_file_with_another_checksum_is_refused_and_a_fetched_one_deleted(tmp_path, server, monkeypatch):
    name = "pawsx/en/test_2k.tsv"
    (tmp_path / "local/pawsx/en").mkdir(parents=True)
    (tmp_path / "local" / name).write_text("id\tsentence1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test_2k\.tsv: wrong checksum.*expected d38c2495e0d5"):
        download.obtain([name], "nowhere", tmp_path / "local", quiet=True)
    assert (tmp_path / "local" / name).exists()                               # a user's file stays
    monkeypatch.setattr(download, "PAWSX", server.url)
    monkeypatch.setitem(download.SHA256, "pawsx/file", "0" * 64)
    with pytest.raises(DataError, match="file: wrong checksum"):
        download.obtain(["pawsx/file"], tmp_path / "cache", quiet=True)
    assert not list((tmp_path / "cache/pawsx").iterdir())
    monkeypatch.setitem(download.SHA256, "pawsx/file", hashlib.sha256(CONTENT).hexdigest())
    for _ in range(2):                                                        # the second time from the cache
        found = download.obtain(["pawsx/file"], tmp_path / "cache", quiet=True)
        assert found["pawsx/file"].read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_dictionary_may_lie_gzipped_in_a_local_folder(tmp_path, monkeypatch):
    (tmp_path / "dictionaries/muse").mkdir(parents=True)
    with gzip.open(tmp_path / f"{DICTIONARY}.gz", "wb") as file:
        file.write(b"dog hund\n")
    monkeypatch.setitem(download.SHA256, DICTIONARY, hashlib.sha256(b"dog hund\n").hexdigest())
    assert download.obtain([DICTIONARY], "", tmp_path, quiet=True)[DICTIONARY].name == "en-de.txt.gz"


def test_a_file_missing_from_a_local_folder_is_named_with_its_address(tmp_path):
    with pytest.raises(DataError, match=r"muse/en-de\.txt is missing: --from-dir.*https://.*/en-de\.txt"):
        download.obtain([DICTIONARY], "", tmp_path, quiet=True)


def test_every_file_has_an_address_on_a_fixed_commit_and_its_languages_have_all_files():
    names = download.files_of(download.LANGUAGES)
    assert sorted(names) == sorted(download.SHA256) and all(len(s) == 64 for s in download.SHA256.values())
    for name in names:
        assert "muse" in name or any(len(part) == 40 for part in download.address(name).split("/"))
    assert download.address("multi30k/task1/val.de.gz").endswith("/data/task1/raw/val.de.gz")
    assert not [n for n in download.files_of(["en", "fr"]) if ".de." in n or "/de/" in n or "-de." in n]
