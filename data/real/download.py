"""Fetch the files of Multi30k, MUSE and PAWS-X, or take them from a local folder, and check each of them.

URLs are pinned to a commit where the host allows it, and SHA256SUMS holds the checksum of every file, so that
everyone reads the same bytes.  Fetched files stay in a cache.  A second call, or one after a broken
connection, fetches only the missing files.
"""
import gzip
import hashlib
import re
import urllib.error
import urllib.request
import zlib
from http.client import HTTPException
from pathlib import Path

from tqdm import tqdm

from data.files import UserError, replaced

GITHUB = "https://raw.githubusercontent.com"
# the address of the file SITE/FOLDER/FILE of a local folder: {0} is its folder, {1} its name
SITES = dict(
    multi30k=f"{GITHUB}/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data/{{0}}/raw/{{1}}",
    pawsx=f"{GITHUB}/chongli17/CrossLingualAlignment/744a46e164904bd787c493cbbddaaec4e57b7737/data/PAWS-X/"
          "x-final/{0}/{1}",
    dictionaries="https://dl.fbaipublicfiles.com/arrival/dictionaries/{1}")
LICENCES = [                                                   # the captions of Multi30k are of Flickr30K
    "Multi30k: non-commercial research and education (Elliott et al. 2016, Barrault et al. 2018)",
    "MUSE dictionaries: CC BY-NC 4.0 (Conneau et al. 2018)",
    "PAWS-X: free for any purpose (Yang et al. 2019)"]
LANGUAGES = ("en", "de", "fr", "cs")
LANGUAGE = re.compile(r"(?:/|\.|en-)(\w\w)(?:/|\.txt|\.gz)")       # in the name of a file
HAND = "or get the file by hand and use a local folder (option from-dir)"
# {file name: sha256}; for a dictionary that of its text, gzipped or not
SUMS = Path(__file__).with_name("SHA256SUMS").read_text(encoding="utf-8").splitlines()
SHA256 = {name: digest for digest, name in map(str.split, SUMS)}


def address(name):
    """The URL of a file, given its name below a local folder."""
    site, *place = name.split("/")
    return SITES[site].format(*place)


def files_of(languages):
    """Names of all files for a folder of these languages, English among them."""
    return [name for name in SHA256 if LANGUAGE.search(name)[1] in languages]


def check(path, name):
    """Raise UserError unless the file has its checksum."""
    content = path.read_bytes()
    try:
        if name.endswith(".txt") and path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is damaged (not a complete .gz file): fetch it again") from None
    digest = hashlib.sha256(content).hexdigest()
    if digest != SHA256[name]:
        raise UserError(f"{path}: wrong checksum (sha256 {digest[:12]}..., expected "
                        f"{SHA256[name][:12]}...): delete the file and fetch it again")


def fetch(url, path):
    """Download a file of a few megabytes, completely or not at all."""
    request = urllib.request.Request(url, headers={"User-Agent": "data/prepare.py"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = answer.read()
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: {error.code} {error.reason}; try again later, {HAND}") from None
    except (OSError, HTTPException) as error:                  # a connection that breaks off among them
        raise UserError(f"{url} cannot be reached ({getattr(error, 'reason', error)}): run the same command "
                        f"again with a network (it resumes), {HAND}") from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as part:
        part.write_bytes(content)


def obtain(names, cache, from_dir=None):
    """Fetch files into the cache, or find them (perhaps gzipped) in from_dir; check them: -> {name: Path}."""
    found = {}
    for name in tqdm(names, "checking files", disable=None, leave=False):
        path = Path(from_dir or cache) / name
        zipped = path.with_name(path.name + ".gz")
        path = zipped if zipped.exists() and not path.exists() else path
        if not path.exists():
            if from_dir:
                raise UserError(f"{path} is missing: the local folder needs {address(name)} under this name")
            fetch(address(name), path)
        try:
            check(path, name)
        except UserError:
            if not from_dir:                                   # the next call fetches it again
                path.unlink()
            raise
        found[name] = path
    return found
