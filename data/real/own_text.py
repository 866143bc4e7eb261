"""A user's own files as the material of a prepared folder."""
import itertools

from data.files import UserError
from data.real import dictionaries, public_tasks
from data.real.build import Source
from data.text import LEAST, documents_of, held_out, pairs_of, part_of


def source(languages, new, texts, given, learned, pairs, folders):
    """Make a Source of files.

    languages, new:  of pretraining, English first, and new ones
    texts:           {language: file}, one document per line
    given:           {language: dictionary file};  learned: see Source
    pairs:           {language: (English file, its file)}, line i of both are translations
    folders:         {task: folder} of public test sets
    Raises UserError for a text of fewer than LEAST documents.
    """
    for path in texts.values():
        n = sum(1 for _ in itertools.islice(documents_of(path), LEAST))
        if n < LEAST:
            raise UserError(f"{path} has {n} non-empty lines: at least {LEAST} are needed, one document "
                            "per line")
    without = dict(train=set(), val=(), test=())     # what pairs test must not stay in the training text
    for files in pairs.values():
        without["train"] |= held_out(pairs_of(*files))
    items, skipped = public_tasks.read_all(folders, [*languages, *new])
    return Source(
        languages, new,
        text=lambda name, split: part_of(documents_of(texts[name]), split, without[split]),
        pairs=lambda name, split: part_of(pairs_of(*pairs[name]), split),
        paired=[name for name in [*languages, *new] if name in pairs],
        given={name: dictionaries.read(path) for name, path in given.items()}, learned=learned,
        items=items, skipped=skipped, about=dict(source=texts, licence=[]), files=texts)
