"""Real languages: text, dictionaries, sentence pairs and tasks into one prepared folder for `--data`.

  python data/prepare.py --download multi30k                    English, German and French captions, 11 MB
  python data/prepare.py --download multi30k --new cs           and Czech, that pretraining does not meet
  python data/prepare.py --download multi30k --from-dir DIR     the same files from a local folder
  python data/prepare.py --text en=a.txt de=b.txt.gz --dictionary de=muse.txt --pairs de=a.en,b.de
                         --tasks pawsx=DIR --out data/mine      your own languages, English among them

Text has one document per line; .gz is read as it is.  A twentieth of the first 200,000 documents (and pairs)
is for validation and as much for test, and no sentence of a pair for tests stays in the training text.
A dictionary has lines "dog hund" (MUSE), "dog<TAB>hund" or {"words": "dog $ hund"}; where there is none, or
with --dictionary de=pairs, one is learned from the pairs.  What the folder holds is in data/folder.py.
"""
import argparse
import re
import sys
from itertools import islice
from pathlib import Path

if not __package__:                  # python data/prepare.py: the repository in place of the folder data/
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from data import dictionaries, download, realtasks  # noqa: E402
from data.folder import SPLITS, Source, write  # noqa: E402
from data.multi30k import Multi30k  # noqa: E402
from data.text import LEAST, DataError, documents_of, held_out, pairs_of, part_of  # noqa: E402

NAME = re.compile(r"[a-z][a-z0-9_-]*")
FROM_PAIRS = "pairs"                 # in place of a dictionary's file


def assignments(flag, given, languages=None):
    """["de=a.txt", ...] -> {"de": "a.txt"}.  Raises DataError for another form or an unknown language."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value or not NAME.fullmatch(name):
            raise DataError(f"{flag} {text}: write NAME=FILE, as in de=german.txt")
        if name in found:
            raise DataError(f"{flag} {text}: {name} is given twice")
        if languages and name not in languages:
            raise DataError(f"{flag} {text}: {name} is none of the languages {', '.join(languages)}")
        found[name] = value
    return found


def divided(languages, new):
    """Languages of pretraining, English first, and new ones.

    Raises DataError without English and another one to pretrain on.
    """
    for name in new:
        if name not in languages:
            raise DataError(f"--new {name}: it is none of the languages {', '.join(languages)}")
    old = sorted((name for name in languages if name not in new), key=lambda name: name != "en")
    if old[:1] != ["en"] or len(old) < 2:
        raise DataError(f"languages of pretraining: {', '.join(old) or 'none'}; en and at least one other "
                        "are needed")
    return old, list(new)


def dictionary_flags(given, languages):
    """-> {language: file}, [languages whose dictionary is learned from pairs]."""
    files = assignments("--dictionary", given, languages[1:])
    return ({name: file for name, file in files.items() if file != FROM_PAIRS},
            [name for name, file in files.items() if file == FROM_PAIRS])


def read_tasks(folders, languages):
    """--tasks: -> items, {task: rows that were skipped}."""
    items, skipped = [], {}
    for task, folder in folders.items():
        if task not in realtasks.TASKS:
            raise DataError(f"--tasks {task}={folder}: the tasks are {', '.join(realtasks.TASKS)}")
        found, skipped[task] = realtasks.read(task, folder, languages)
        items += found
    return items, skipped


def multi30k(args):
    """The Source of --download multi30k: languages apart by pictures."""
    wanted = [name for name in args.languages.split(",") if name]
    for name in [*wanted, *args.new]:
        if name not in download.LANGUAGES:
            raise DataError(f"--languages: multi30k has {', '.join(download.LANGUAGES)}, not '{name}'")
    old, new = divided(list(dict.fromkeys([*wanted, *args.new])), args.new)
    languages = [*old, *new]
    files = download.obtain(download.files_of(languages), args.cache, args.from_dir)
    captions = Multi30k(files, languages)
    own, learned = dictionary_flags(args.dictionary, languages)
    given = {name: own.get(name) or files[f"dictionaries/muse/en-{name}.txt"] for name in languages[1:]}
    folders = assignments("--tasks", args.tasks)
    pawsx = [file for name, file in files.items() if name.startswith("pawsx/en")]
    items, skipped = read_tasks(dict(pawsx=pawsx[0].parent.parent) | folders, languages)
    return Source(
        old, new, lambda name, split: iter(captions.text(name, split, args.seed)),
        lambda name, split: iter(captions.pairs(name, split, args.seed)), languages[1:],
        {name: dictionaries.read(path) for name, path in given.items()}, learned,
        [*captions.items(args.seed), *items], skipped,
        dict(source="multi30k", licence=list(download.LICENCES.values())))


def own_files(args):
    """The Source of a user's own files."""
    texts = assignments("--text", args.text)
    old, new = divided(list(texts), args.new)
    languages = [*old, *new]
    for path in texts.values():
        n = sum(1 for _ in islice(documents_of(path), LEAST))
        if n < LEAST:
            raise DataError(f"{path} has {n} non-empty lines: at least {LEAST} are needed, one document "
                            "per line")
    sides = {}
    for name, value in assignments("--pairs", args.pairs, languages[1:]).items():
        sides[name] = value.split(",")
        if len(sides[name]) != 2:
            raise DataError(f"--pairs {name}={value}: two files, English first, as in de=text.en,text.de")
    files, learned = dictionary_flags(args.dictionary, languages)
    for name in learned:
        if name not in sides:
            raise DataError(f"--dictionary {name}={FROM_PAIRS} needs --pairs {name}=ENGLISH,OTHER")
    items, skipped = read_tasks(assignments("--tasks", args.tasks), languages)
    tests = dict(train=set().union(*(held_out(pairs_of(*files)) for files in sides.values())))
    return Source(
        old, new, lambda name, split: part_of(documents_of(texts[name]), split, tests.get(split, ())),
        lambda name, split: part_of(pairs_of(*sides[name]), split), [n for n in languages[1:] if n in sides],
        {name: dictionaries.read(path) for name, path in files.items()}, learned, items, skipped,
        dict(source=texts, licence=[]))


def report(folder, meta):
    """What was made, in numbers."""
    rows = [f"{folder}: {meta['base_vocab']} pieces" + " for each language" * meta["disjoint"]]
    for name in [*meta["languages"], *meta["new"]]:
        counts, unit = meta["counts"]["languages"][name], "word" if meta["spaces"][name] else "character"
        rows.append(f"{name}: {meta['words'][f'{name}.train']:,} {unit}s of training text, "
                    f"{meta['tokens'][f'{name}.train']:,} tokens; documents: " + ", ".join(
                        f"{counts[split]:,} {split}" for split in SPLITS))
        rows.append(f"    {meta['tokens_per_word'][name]:.2f} tokens a {unit}")
        if name in meta["new"]:
            rows[-1] += (f", {meta['tokens_per_word_before'][name]:.2f} before "
                         f"{meta['new_vocab'][name] - meta['base_vocab']} new pieces")
        if "dictionary" in counts:
            rows.append(f"    {'learned ' * counts['learned']}dictionary: {counts['dictionary']:,} pairs of "
                        f"{counts['dictionary_words']:,} words, {counts['coverage']:.0%} of the English "
                        f"text; {counts['lexicon_words']} more words to test")
            rows.append(f"    dropped: {counts['never_occur']:,} pairs with a word that never occurs")
        if "pairs_train" in counts:
            rows.append("    sentence pairs: " + ", ".join(f"{counts[f'pairs_{s}']:,} {s}" for s in SPLITS))
        if name != "en" and "dictionary" not in counts:
            rows.append("    no dictionary: give one with --dictionary, or --pairs to learn it from (where "
                        "spaces part the words)")
    for task, splits in meta["counts"]["tasks"].items():
        skipped = meta["counts"]["skipped"].get(task, 0)
        rows.append(f"{task}: " + ", ".join(f"{n:,} {split}" for split, n in splits.items())
                    + f"; {skipped} rows without a sentence skipped" * bool(skipped))
    rows += [f"licence: {line}" for line in meta["licence"]]
    return "\n".join(rows)


def parse_args(argv):
    p = argparse.ArgumentParser(prog="prepare.py", description=__doc__, allow_abbrev=False,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.error = lambda message: p.exit(2, f"prepare.py: {message} (--help lists all flags)\n")
    p.add_argument("--download", choices=["multi30k"], help="a set that is fetched and checked")
    p.add_argument("--from-dir", metavar="DIR", help="with --download: take the files from here")
    p.add_argument("--cache", default="data/cache/download", metavar="DIR", help="where files are fetched to")
    p.add_argument("--languages", default="en,de,fr", help="of multi30k, English first [%(default)s]")
    p.add_argument("--text", nargs="+", default=[], metavar="LANG=FILE", help="your own text")
    p.add_argument("--dictionary", nargs="+", default=[], metavar="LANG=FILE",
                   help="English to each language; LANG=pairs learns it from the sentence pairs")
    p.add_argument("--pairs", nargs="+", default=[], metavar="LANG=EN,OTHER", help="two aligned files")
    p.add_argument("--tasks", nargs="+", default=[], metavar="TASK=DIR", help=", ".join(realtasks.TASKS))
    p.add_argument("--new", nargs="+", default=[], metavar="LANG",
                   help="languages that tokenizer and pretraining do not meet")
    p.add_argument("--out", metavar="DIR", help="the folder to make [data/multi30k or data/own]")
    p.add_argument("--vocab_size", type=int, default=4000, help="pieces of the tokenizer [%(default)s]")
    p.add_argument("--new_pieces", type=int, default=2000, help="more for each new language [%(default)s]")
    p.add_argument("--disjoint", action="store_true", help="no two languages share a piece (control)")
    p.add_argument("--captions", type=int, help="most training documents of a language but English [all]")
    p.add_argument("--pairs_n", type=int, help="most sentence pairs to train on [all]")
    p.add_argument("--dictionary_words", type=int, help="most English words of each dictionary [all]")
    p.add_argument("--seed", type=int, default=0, help="of splits and shuffles [%(default)s]")
    args = p.parse_args(argv)
    least = dict(vocab_size=300, new_pieces=1, captions=1, pairs_n=0, dictionary_words=0, seed=0)
    for flag, low in least.items():
        found = getattr(args, flag)
        if found is not None and found < low:
            p.error(f"--{flag} {found} is out of range: at least {low}")
    if bool(args.download) == bool(args.text):
        p.error("give either --download multi30k or --text en=FILE de=FILE")
    if args.disjoint and args.new:
        p.error("--disjoint goes without --new: new pieces stand beside shared ones")
    return args


def main(argv=None):
    args = parse_args(argv)
    try:
        source = multi30k(args) if args.download else own_files(args)
        out = Path(args.out or ("data/multi30k" if args.download else "data/own"))
        print(report(out, write(out, source, args.vocab_size, args.new_pieces, args.seed, args.disjoint,
                                args.captions, args.pairs_n, args.dictionary_words)))
        return 0
    except (DataError, OSError) as error:
        about = f"{error.filename or 'writing'}: {error.strerror}" if isinstance(error, OSError) else error
        print(f"prepare.py: {about}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; no folder was made.  Downloaded files are kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
