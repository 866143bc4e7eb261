"""The files of Multi30k, MUSE and PAWS-X: from the network or from a folder, each checked before it is used.

Every address names a commit where its host has commits, and the sha256 of every file is written here, so what
was measured is what is read.  What has arrived stays in `cache`: a second call, or one after a broken line,
goes on with the bytes that are missing.

Terms: Multi30k is for non-commercial research and education (its captions come from Flickr30K); MUSE is
CC BY-NC 4.0; PAWS-X may be used for any purpose.
"""
import gzip
import hashlib
import os
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from data.text import DataError

MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/a3d2e0d26b56f3846f66a952536ffed4e401d05a/data"
PAWSX = ("https://raw.githubusercontent.com/chongli17/CrossLingualAlignment/"
         "744a46e164904bd787c493cbbddaaec4e57b7737/data/PAWS-X/x-final")
MUSE = "https://dl.fbaipublicfiles.com/arrival/dictionaries"
LICENCES = dict(
    multi30k="Multi30k: non-commercial research and education (Elliott et al. 2016, Barrault et al. 2018)",
    muse="MUSE dictionaries: CC BY-NC 4.0 (Conneau et al. 2018)",
    pawsx="PAWS-X: free for any purpose (Yang et al. 2019)")
LANGUAGES = ("en", "de", "fr", "cs")

# sha256 of the files as their hosts have them; of a dictionary, of its text, gzipped or not
SHA256 = dict(reversed(line.split()) for line in """
200a4a74cc9560f051924abb9803be008d1908d77f747e9141aeb86dfd2797f1 multi30k/task1/test_2016_flickr.cs.gz
9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8 multi30k/task1/test_2016_flickr.de.gz
611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9 multi30k/task1/test_2016_flickr.en.gz
6d326e188d259fb1d04ac19eae3af956559b3a0b93d7635e56c90987c40c8b90 multi30k/task1/test_2016_flickr.fr.gz
a65adb8b32e3bc664f21ecba7a6e7f6950fd1f405e135f7c312faabdb6255077 multi30k/task1/train.cs.gz
726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6 multi30k/task1/train.de.gz
d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f multi30k/task1/train.en.gz
622e75069e9f4c577425c4f277116ce66e63a2401c0a2312d90073cb12379a3c multi30k/task1/train.fr.gz
b63226e05c4bd5dd6a42897d74b86a1b9d2c31498252c572b1ea7f7996927fcc multi30k/task1/val.cs.gz
f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a multi30k/task1/val.de.gz
14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28 multi30k/task1/val.en.gz
ca3106f1a72390591d25f6c45cb4cd39dec4cd3f123e099748a3ce5256c160e9 multi30k/task1/val.fr.gz
bf64274c8e1f73ba57d47409f707a640b3874a06e7e83adfb5a6d4c055bc6b29 multi30k/task2/test_2016.1.en.gz
36c12dac199e336e74ebe91c5240a1c6cefce7af2a3f3a2054d184947932bc3c multi30k/task2/test_2016.2.en.gz
2188662d22b01c5ecf7ae6a7c003b45fc83c510d34999c2340078e75088b0f1f multi30k/task2/test_2016.3.en.gz
dcb6a0ad2ae40f54a1f9e9f20d3146c7f0a662feece2e78d2d511667bf229f08 multi30k/task2/test_2016.4.en.gz
60e31317f0d960aed273d8ec527411935fb1ff3dee2c9cc9572259739ff193c0 multi30k/task2/test_2016.5.en.gz
a0e057f07a9733199c0d755d77f6d583dc6f40a3180734b1130a216e2fdf3a3b multi30k/task2/train.1.en.gz
d79dd70a9eafb2d1fe40151621278c4ae69b3c148c5052a53d7c7a41bf3ba023 multi30k/task2/train.2.en.gz
86e16fdcc699bcb6bca0f87c3cf1051f7de5ee3674dd588cedc5200194282749 multi30k/task2/train.3.en.gz
3771b84e010ad6197806d2a1188cb07c12149e3e0d178dd5966dee5763733686 multi30k/task2/train.4.en.gz
73988689307fe836994eae59735dc840c15da9775455fa76e6ed22606a042a91 multi30k/task2/train.5.en.gz
4ce8f8ffbef4a1c066e3f35a5ffc764666c26c318a733d9bdc6349577f1c6f9c multi30k/task2/val.1.en.gz
4103944d652127e5af33ba2761d71cb6c0e1509c1a67d4387dc67ad768cfb752 multi30k/task2/val.2.en.gz
6ecd848713d98faa9c6db2e9e457a778335358e6e3a4743cf4e929a0516e399a multi30k/task2/val.3.en.gz
bfab4f0cbdac6233f206bbbfbd324dc02b258e291c3f410a69f9884171008788 multi30k/task2/val.4.en.gz
4b6a6541b7b58d545eff7feead4187aeb0439a7178a7bed6951121e0ecbaee66 multi30k/task2/val.5.en.gz
ff9942eafd0ce4bc78183386da34b7765ef6b85065e5c892e35767afd3599b54 dictionaries/muse/en-de.txt
044952e1ab346efbc843a1204bcf5dd774e48c78254173ee36c16e36f0021d6d dictionaries/muse/en-fr.txt
8f2cc2785cd66eec138ffe4bda581f9db21d8d96d47875ff3c3d32b44a553a47 dictionaries/muse/en-cs.txt
8b7d965b20185d79a1b7105e7f98d1a07dcb164e3dea395158b88a7f7b828d69 pawsx/de/dev_2k.tsv
fcea7272af14558ba6c233b9b0fc7de38de3b41df53947e7a410a10cc2c3aabc pawsx/de/test_2k.tsv
4321fdc0d0b9206e7ab43a8a038dbb234dad8b6d512729b5bccc115cb0873819 pawsx/en/dev_2k.tsv
d38c2495e0d506ebd666f4872ab7087f49fbd7fade5e0ec8615d57ee1e298057 pawsx/en/test_2k.tsv
addff0b6d3dc58a7f988936f292a789171e60601e290a942bb32647dc4b01a2e pawsx/fr/dev_2k.tsv
e23ad8c5e142c27c80cb1f1a6ec70837af3619d1adb73b5982c9ec49776bd1f2 pawsx/fr/test_2k.tsv""".strip().split("\n"))


def address(name):
    """Where a file comes from: its name below a local folder -> URL."""
    part, _, rest = name.partition("/")
    if part == "multi30k":
        task, file = rest.split("/")
        return f"{MULTI30K}/{task}/raw/{file}"
    return f"{PAWSX}/{rest}" if part == "pawsx" else f"{MUSE}/{Path(rest).name}"


def files_of(languages):
    """Names of all files that a folder of these languages is made of (English is always among them)."""
    found = [name for name in SHA256 if name.startswith("multi30k/task2")]
    for language in languages:
        found += [f"multi30k/task1/{split}.{language}.gz" for split in ("train", "val", "test_2016_flickr")]
        found += [name for name in SHA256 if name.startswith((f"pawsx/{language}/",
                                                              f"dictionaries/muse/en-{language}."))]
    return found


def check(path, name):
    """Raises DataError unless the file has the checksum written here."""
    digest = hashlib.sha256()
    # a dictionary may lie there gzipped: then its text is what is compared
    with (gzip.open if name.endswith(".txt") and path.suffix == ".gz" else open)(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != SHA256[name]:
        raise DataError(f"{path}: wrong checksum (sha256 {digest.hexdigest()[:12]}..., expected "
                        f"{SHA256[name][:12]}...): delete the file and fetch it again")


def fetch(url, path, quiet=False):
    """Download a file to `path`, going on after what `path`.part holds; it gets its name when it is whole.

    Raises DataError, in one line, where there is no network or no such file.
    """
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "data/prepare.py"}
                                     | ({"Range": f"bytes={have}-"} if have else {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            if answer.status != 206:                           # this host sends the whole file anew
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length else None
            bar = tqdm(desc=path.name, total=total, initial=have, unit="B", unit_scale=True,
                       disable=quiet or None, leave=False)
            with bar, open(part, "ab") as file:
                file.truncate(have)
                while block := answer.read(2**16):
                    file.write(block)
                    bar.update(len(block))
        if total and part.stat().st_size < total:
            raise urllib.error.URLError("the connection broke off")
    except urllib.error.HTTPError as error:
        if error.code != 416:                                  # 416: nothing is missing, the file was whole
            raise DataError(f"{url}: {error.code} {error.reason}; get the file by hand, put it below a "
                            "folder under the same name and give --from-dir") from None
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DataError(f"{url} cannot be reached ({getattr(error, 'reason', error)}): run the same command "
                        "again with a network (it goes on where it stopped), or give --from-dir with a "
                        "folder that holds the files") from None
    os.replace(part, path)


def obtain(names, cache, from_dir=None, quiet=False):
    """Paths of the files, all checked: -> {name: Path}.

    from_dir: a folder with the files under these names; nothing is downloaded then.  A dictionary may be
              gzipped (en-de.txt.gz).
    Raises DataError for what is missing, cannot be fetched or has another checksum.
    """
    found = {}
    for name in tqdm(names, "checking files", disable=quiet or None, leave=False):
        path = Path(from_dir or cache) / name
        zipped = path.with_name(path.name + ".gz")
        if not path.exists() and zipped.exists():
            path = zipped
        if not path.exists():
            if from_dir:
                raise DataError(f"{path} is missing: --from-dir takes a folder with the files of "
                                f"{address(name)} and the others under these names")
            fetch(address(name), path, quiet)
        try:
            check(path, name)
        except DataError:
            if not from_dir:                                   # ours: the next call fetches it again
                path.unlink()
            raise
        found[name] = path
    return found
