"""Downloads from a server on this machine: checksums, broken connections, messages without a network."""
import gzip
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from data.files import UserError
from data.real import download

CONTENT = bytes(range(256)) * 400
DICTIONARY = "dictionaries/muse/en-de.txt"


@pytest.fixture
def server():
    """Serves CONTENT; .asked lists the paths, .cut ends the first answer after so many bytes."""
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            here.asked.append(self.path)
            if self.path != "/file":
                return self.send_error(503 if self.path == "/busy" else 404)
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            part, here.cut = CONTENT[:here.cut], None
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


@pytest.mark.parametrize("cut", [0, 30_000])
def test_a_broken_download_leaves_nothing_and_the_next_call_fetches_the_file(tmp_path, server, cut):
    path, server.cut = tmp_path / "a" / "file", cut
    with pytest.raises(UserError, match="cannot be reached.*it resumes.*local folder"):
        download.fetch(f"{server.url}/file", path)
    assert not list(tmp_path.iterdir())
    download.fetch(f"{server.url}/file", path)
    assert path.read_bytes() == CONTENT and server.asked == ["/file"] * 2
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_missing_file_and_a_missing_network_get_one_line(tmp_path, server):
    with pytest.raises(UserError, match="nothing: 404 .*get the file by hand and use a local folder"):
        download.fetch(f"{server.url}/nothing", tmp_path / "file")
    with pytest.raises(UserError, match="busy: 503 "):
        download.fetch(f"{server.url}/busy", tmp_path / "file")
    with pytest.raises(UserError, match="cannot be reached .*again with a network") as error:
        download.fetch("http://127.0.0.1:9/file", tmp_path / "file")
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_file_with_another_checksum_is_refused_and_a_fetched_one_deleted(tmp_path, server, monkeypatch):
    name = "pawsx/en/test_2k.tsv"
    (tmp_path / "local/pawsx/en").mkdir(parents=True)
    (tmp_path / "local" / name).write_text("id\tsentence1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"test_2k\.tsv: wrong checksum.*expected d38c2495e0d5"):
        download.obtain([name], "nowhere", tmp_path / "local")
    assert (tmp_path / "local" / name).exists()                               # a user's file stays
    monkeypatch.setitem(download.SITES, "pawsx", f"{server.url}/{{0}}")
    monkeypatch.setitem(download.SHA256, "pawsx/file", "0" * 64)
    with pytest.raises(UserError, match="file: wrong checksum"):
        download.obtain(["pawsx/file"], tmp_path / "cache")
    assert not list((tmp_path / "cache/pawsx").iterdir())
    monkeypatch.setitem(download.SHA256, "pawsx/file", hashlib.sha256(CONTENT).hexdigest())
    for _ in range(2):                                                        # the second time from the cache
        found = download.obtain(["pawsx/file"], tmp_path / "cache")
        assert found["pawsx/file"].read_bytes() == CONTENT
    assert len(server.asked) == 2


def test_a_dictionary_may_be_gzipped_in_a_local_folder(tmp_path, monkeypatch):
    (tmp_path / "dictionaries/muse").mkdir(parents=True)
    with gzip.open(tmp_path / f"{DICTIONARY}.gz", "wb") as file:
        file.write(b"dog hund\n")
    monkeypatch.setitem(download.SHA256, DICTIONARY, hashlib.sha256(b"dog hund\n").hexdigest())
    path = download.obtain([DICTIONARY], "", tmp_path)[DICTIONARY]
    assert path.name == "en-de.txt.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"en-de\.txt\.gz is damaged \(not a complete \.gz file\)"):
        download.obtain([DICTIONARY], "", tmp_path)


def test_a_file_missing_from_a_local_folder_is_named_with_its_address(tmp_path):
    message = r"muse/en-de\.txt is missing: the local folder needs https://.*/en-de\.txt under"
    with pytest.raises(UserError, match=message):
        download.obtain([DICTIONARY], "", tmp_path)


def test_every_file_has_an_address_on_a_fixed_commit_and_its_languages_have_all_files():
    names = download.files_of(download.LANGUAGES)
    assert sorted(names) == sorted(download.SHA256) and all(len(s) == 64 for s in download.SHA256.values())
    for name in names:
        assert "muse" in name or any(len(part) == 40 for part in download.address(name).split("/"))
    assert download.address("multi30k/task1/val.de.gz").endswith("/data/task1/raw/val.de.gz")
    assert download.address("pawsx/de/dev_2k.tsv").endswith("/data/PAWS-X/x-final/de/dev_2k.tsv")
    assert download.address(DICTIONARY) == "https://dl.fbaipublicfiles.com/arrival/dictionaries/en-de.txt"
    assert download.SHA256[DICTIONARY].startswith("ff9942eafd0ce4bc") and len(names) == 36
    assert not [n for n in download.files_of(["en", "fr"]) if ".de." in n or "/de/" in n or "-de." in n]
