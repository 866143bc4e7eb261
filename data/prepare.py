"""Make a prepared folder of real languages, for `python train.py --data`.

  python data/prepare.py --download multi30k                    English, German and French captions, 11 MB
  python data/prepare.py --download multi30k --new cs           and Czech, held out of pretraining
  python data/prepare.py --download multi30k --from-dir DIR     the same files from a local folder
  python data/prepare.py --text en=a.txt de=b.txt.gz --dictionary de=muse.txt --pairs de=a.en,b.de
                         --tasks pawsx=DIR --out data/mine      your own languages, English among them
  python data/prepare.py --parallel de=a.en,b.de --out data/mine the same from a parallel corpus alone

Text has one document per line, plain or .gz.  A twentieth of the first 200,000 documents (and pairs) is for
validation and a twentieth for test (with --parallel, of all).  What they hold is removed from training.
A dictionary has lines "dog hund" (MUSE), "dog<TAB>hund" or {"words": "dog $ hund"}.  Without one, it is
learned from the pairs.  data/folder.py describes the files of the folder.
"""
import argparse
import difflib
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path

if not __package__:                  # python data/prepare.py: the repository in place of the folder data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data.files import UserError, refuse  # noqa: E402
from data.real import build, dictionaries, download, multi30k, parallel, public_tasks  # noqa: E402
from data.text import documents_of, pairs_of, part_of  # noqa: E402

NAME = re.compile(r"[a-z][a-z0-9_-]*")
RANGES = dict(vocab_size=(300, 2**20), new_subwords=(1, 2**20), captions=(1, 2**40), pairs_n=(0, 2**40),
              dictionary_words=(0, 2**40), seed=(0, 2**31), divide=(0.05, 0.95))
CACHE = "data/cache/download"


def assignments(flag, values, n_files=1):
    """Split ["de=a.txt", ...]: -> {"de": "a.txt"}, or {"de": ["a.en", "a.de"]} for two files each."""
    found = {}
    for text in values:
        name, _, value = text.partition("=")
        files = value.split(",") if n_files > 1 else [value]
        if len(files) != n_files or not all(files) or not NAME.fullmatch(name):
            form = "de=german.txt" if n_files == 1 else "de=text.en,text.de (two files, English first)"
            raise UserError(f"{flag} {text}: write NAME=FILE, as in {form}")
        refuse(name in found, f"{flag} {text}: {name} is given twice")
        for file in files:
            refuse(not Path(file).exists(), f"{flag} {text}: {file} does not exist")
        found[name] = files if n_files > 1 else value
    return found


def check_names(flag, names, known):
    for name in names:
        refuse(name not in known, f"{flag} {name}: not one of {', '.join(known)}")


def source_of(args):
    """Check the command line and read what it names: -> build.Source."""
    texts, given = assignments("--text", args.text), assignments("--dictionary", args.dictionary)
    pairs, folders = assignments("--pairs", args.pairs, 2), assignments("--tasks", args.tasks)
    corpora = assignments("--parallel", args.parallel, 2)
    languages = list(texts) or list(dict.fromkeys(["en", *corpora]))
    if args.download:
        languages = list(dict.fromkeys([*filter(None, (args.languages or "en,de,fr").split(",")), *args.new]))
        check_names("--languages", languages, download.LANGUAGES)
    check_names("--new", args.new, languages)
    old = sorted((name for name in languages if name not in args.new), key=lambda name: name != "en")
    refuse(old[:1] != ["en"] or len(old) < 2,
           f"languages of pretraining: {', '.join(old) or 'none'}; en and at least one other are needed")
    others = [*old[1:], *args.new]
    for flag, names in (("--dictionary", given), ("--pairs", pairs), ("--parallel", corpora)):
        check_names(flag, names, others)
    check_names("--tasks", folders, public_tasks.TASKS)
    if args.download:
        refuse(args.from_dir and not Path(args.from_dir).is_dir(),
               f"--from-dir {args.from_dir}: no such folder")
        files = download.obtain(download.files_of([*old, *args.new]), args.cache or CACHE, args.from_dir)
        given = {name: files[f"dictionaries/muse/en-{name}.txt"] for name in others} | given
        folders = dict(pawsx=files["pawsx/en/test_2k.tsv"].parent.parent) | folders
    items, skipped = [], {}
    for task, folder in folders.items():
        found, skipped[task] = public_tasks.read(task, folder, [*old, *args.new])
        items += found
    rest = dict(given={name: dictionaries.read(path) for name, path in given.items()}, items=items,
                skipped=skipped)
    if args.download:
        return multi30k.source(old, args.new, files, args.seed, rest)
    if corpora:
        return parallel.source(old, args.new, corpora, args.divide or 0.75, rest)
    return build.Source(
        old, args.new, text=lambda name, split: part_of(documents_of(texts[name]), split),
        pairs=lambda name, split: part_of(pairs_of(*pairs[name]), split), paired=[*pairs], apart=True,
        about=dict(source=texts, licence=[]), files=texts, **rest)


def next_command(folder, meta, checkpoint=None):
    """The command that trains on a folder; word alignment needs a dictionary of two words."""
    words = sum(meta["counts"]["languages"][name].get("dictionary_words", 0) for name in meta["languages"])
    start = "--method prealign" if words > 1 else "--method baseline"
    if checkpoint:
        start = f"--pretrained {shlex.quote(checkpoint)}"
    return f"python train.py {start} --data {shlex.quote(str(folder))}"


def parse_args(argv):
    def complain(message):
        for word in argv:
            flag = word.split("=")[0]
            if flag.startswith("--") and flag not in p._option_string_actions:
                near = difflib.get_close_matches(flag, p._option_string_actions, 1, 0)
                message = f"unknown flag {flag}; did you mean {near[0]}?"
        p.exit(2, f"prepare.py: {' '.join(message.split())} (--help lists all flags)\n")

    p = argparse.ArgumentParser(prog="prepare.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.error = complain
    several = partial(p.add_argument, nargs="+", action="extend", default=[])
    p.add_argument("--download", choices=["multi30k"], help="a data set that is fetched and checked")
    p.add_argument("--from-dir", metavar="DIR", help="with --download: take the files from this folder")
    p.add_argument("--cache", metavar="DIR", help=f"where fetched files are kept [{CACHE}]")
    p.add_argument("--languages", help="of multi30k, English first [en,de,fr]")
    several("--text", metavar="LANG=FILE", help="your own text")
    several("--dictionary", metavar="LANG=FILE",
            help="from English to each language; without one it is learned from the sentence pairs")
    several("--pairs", metavar="LANG=EN,OTHER", help="two aligned files")
    several("--parallel", metavar="LANG=EN,OTHER", help="two aligned files in place of texts and pairs")
    p.add_argument("--divide", type=float, metavar="X", help="share of the lines that is English text [0.75]")
    several("--tasks", metavar="TASK=DIR", help=", ".join(public_tasks.TASKS))
    several("--new", metavar="LANG", help="languages that tokenizer and pretraining do not meet")
    p.add_argument("--out", metavar="DIR", help="the folder to make [data/multi30k or data/own]")
    p.add_argument("--tokenizer", metavar="DIR", help="take that of a public checkpoint, for --pretrained")
    p.add_argument("--vocab_size", type=int, help="size of the tokenizer that is trained [4000]")
    p.add_argument("--new_subwords", type=int, help="more for each new language [2000]")
    p.add_argument("--disjoint", action="store_true", help="no two languages share a subword (control)")
    p.add_argument("--captions", type=int, help="most training documents of a language but English [all]")
    p.add_argument("--pairs_n", type=int, help="most sentence pairs to train on [all]")
    p.add_argument("--dictionary_words", type=int, help="most English words of each dictionary [all]")
    p.add_argument("--seed", type=int, default=0, help="of splits and shuffles [%(default)s]")
    args = p.parse_args(argv)
    args.new = list(dict.fromkeys(args.new))
    for flag, (low, high) in RANGES.items():
        value = getattr(args, flag)
        if value is not None and not low <= value <= high:
            p.error(f"--{flag} {value} is out of range: {low} to {high}")
    if sum(map(bool, (args.download, args.text, args.parallel))) != 1:
        p.error("give either --download multi30k or --text en=FILE de=FILE or --parallel de=EN,DE")
    for flag, serves, why in (
        ("pairs", args.text, "--text: others have their own pairs"), ("divide", args.parallel, "--parallel"),
        *((flag, args.download, "--download") for flag in ("languages", "from_dir", "cache")),
        ("cache", not args.from_dir, "files that are fetched, not with --from-dir"),
        ("new_subwords", args.new, "--new"), ("pairs_n", not args.text or args.pairs, "--pairs"),
        ("dictionary_words", args.download or args.pairs + args.parallel + args.dictionary,
         "--dictionary or --pairs"),
        ("vocab_size", not args.tokenizer, "a tokenizer of its own, not with --tokenizer"),
    ):
        if getattr(args, flag) not in (None, []) and not serves:
            p.error(f"--{flag.replace('from_dir', 'from-dir')} goes with {why}")
    if args.disjoint and (args.new or args.tokenizer):
        p.error("--disjoint goes without --new and --tokenizer, which extend or take a shared tokenizer")
    return args


def main(argv=None):
    """Run the command line: -> exit code."""
    args = parse_args(sys.argv[1:] if argv is None else argv)
    folder = Path(args.out or ("data/multi30k" if args.download else "data/own"))
    try:
        refuse(folder.exists(), f"{folder} exists: delete it, or choose another folder")
        meta = build.write(folder, source_of(args), args.vocab_size or 4000, args.new_subwords or 2000,
                           args.seed, args.disjoint, args.captions, args.pairs_n, args.dictionary_words,
                           args.tokenizer)
    except (UserError, OSError) as error:
        message = error
        if isinstance(error, OSError):
            message = f"{error.filename or folder}: {os.strerror(error.errno or 5)}"
        print("prepare.py:", " ".join(str(message).split()), file=sys.stderr)  # names may hold newlines
        return 2
    except KeyboardInterrupt:
        print("\nstopped, no folder was made; fetched files are kept", file=sys.stderr)
        return 130
    print(build.summary(folder, meta))
    print(f"next: {next_command(folder, meta, args.tokenizer)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
