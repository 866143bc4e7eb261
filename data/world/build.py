"""Write the folder of the built-in world; data/folder.py describes its files.

Only English is generated.  Other languages are English in disguise: token t of English is token t + i * V in
the i-th language, separators and punctuation included, and some languages change the order of words.  They
share no token with English, and the translation of everything is known.

  load            find the folder of some settings; build makes it at first use
  add_language    write the text of a language that pretraining does not meet
"""
import itertools
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data.corpus import languages_of_rows
from data.files import UserError, checksum, locked, replaced, whole_folder
from data.folder import (FORMAT, file_digest, language_order, pack, read_meta, token_classes, train_tokenizer,
                         write_items, write_json, write_lines, write_stream, write_text)
from data.text import LEAST, chunks, documents_of
from data.world.lexicon import LABELS, QUESTIONS
from data.world.world import World

# the files that decide what the folder holds
SOURCES = [Path(__file__).parent / name for name in ("lexicon.py", "world.py", "build.py", "../folder.py")]
AT_ONCE = 2**20                    # characters that become tokens at once
TOKENIZER_DOCUMENTS = 20_000       # English documents that train the tokenizer
VAL_WORDS = LEAST_WORDS = 20_000   # words of each validation text, and of the smallest training text
DICTIONARY_TOKENS = 2_000_000      # the dictionary has the words of so much English text ...
DICTIONARY_COUNT = 5               # ... that occur so often
NEW_VAL_TOKENS = 25_000            # tokens of the validation text of a new language
# Items of each task and difficulty: for demonstrations, for test, and for instruction tuning.
VAL_ITEMS, TEST_ITEMS, EXERCISES = 50, 500, 500


# --- the parts of the folder --------------------------------------------------------------------------------

def world_items(seed):
    """Generate all items of the folder: -> list of (split, item as a dict)."""
    world, found, exercises = World(seed), [], []
    for task, difficulty in QUESTIONS:
        n_train = EXERCISES
        if task == "translate":
            n_train = 5000
        elif task in LABELS and difficulty == "lexical":            # for zero-shot transfer
            n_train = 4000
        train = world.items(task, "train", n_train, difficulty)
        found += rows(task, "train", train)
        found += rows(task, "val", world.items(task, "dev", VAL_ITEMS, difficulty))
        found += rows(task, "test", world.items(task, "test", TEST_ITEMS, difficulty))
        if task != "translate":
            exercises.append(train[:EXERCISES])
    found += rows("exercise", "train", itertools.chain(*zip(*exercises)))        # the tasks take turns
    found += rows("knowledge", "test", world.knowledge())
    return found


def rows(task, split, items):
    """Yield (split, item as a dict) for the items of one file."""
    for i, item in enumerate(items):
        row = dict(vars(item), id=f"{task}-{item.difficulty}-{split}-{i}", task=task)
        if not item.told:
            del row["told"]
        yield split, row


def frequent_words(tokens, tokenizer):
    """Find the frequent words of English text in order of first occurrence: (n,) -> [str]."""
    starts, _ = token_classes(tokenizer)
    size, data = tokens.itemsize, tokens.tobytes()                  # a word as bytes is counted faster
    bounds = (np.append(np.flatnonzero(starts[tokens]), len(tokens)) * size).tolist()
    counts = Counter(data[start:end] for start, end in itertools.pairwise(bounds))
    frequent = [word for word, n in counts.items() if n >= DICTIONARY_COUNT]
    words = tokenizer.decode_batch([np.frombuffer(word, tokens.dtype).tolist() for word in frequent])
    return [word.strip() for word in words if re.fullmatch(r" [^\W_]+", word)]


def read_text(path):
    """Read the different documents of a user's English, one per line of the file: -> [str].

    Repeated documents are dropped: a copy in the validation text would be known from training.
    Raises UserError naming the file, and the line if it is not UTF-8.
    """
    documents = list(dict.fromkeys(documents_of(path)))
    if len(documents) < LEAST:
        raise UserError(f"{path} has {len(documents)} different non-empty lines: at least {LEAST} are "
                        "needed, one document per line")
    return documents


def own_stories(documents, split, index, shares):
    """Select the user's documents that one pretraining stream tells instead of the world's stories: -> [str].

    Of twenty documents, one is for validation (the languages take turns) and one is kept for new languages.
    The others are divided by shares.  No two streams share a document, so nothing is parallel by accident.
    """
    if split == "val":
        return documents[::20][index::len(shares)]
    train = [document for i, document in enumerate(documents) if i % 20 not in (0, 10)]
    languages = languages_of_rows(0, len(train), shares)
    return [document for document, language in zip(train, languages) if language == index]


def write_tokens(folder, stream, documents, tokenizer, index, meta, limit=None):
    """Write the stream "<language>.<split>" of language number `index`, and enter its counts in meta.

    limit: largest number of tokens
    """
    order, classes = meta["word_order"].get(stream.split(".")[0]), token_classes(tokenizer)

    def batches():
        for batch in chunks(documents, AT_ONCE):
            tokens = pack(batch, tokenizer, order, classes)
            tokens += index * meta["base_vocab"]                     # [PreAlign: synthetic English-Clone]
            yield batch, tokens, sum(len(document.split()) for document in batch)

    path = folder / f"{stream}.bin"
    path.unlink(missing_ok=True)        # not overwritten: another process may be reading it
    counts = write_stream(path, batches(), meta["dtype"])
    if limit and counts["tokens"] > limit:
        os.truncate(path, limit * np.dtype(meta["dtype"]).itemsize)
        kept = limit / counts["tokens"]
        counts = dict(documents=round(counts["documents"] * kept), words=round(counts["words"] * kept),
                      bytes=counts["bytes"] * kept, tokens=limit)
    for key, n in counts.items():
        meta[key][stream] = n


# --- the folder ---------------------------------------------------------------------------------------------

def build(folder, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Generate the world, train the tokenizer on its English training text and write the folder.

    The folder appears completely or not at all.  Memory holds one batch of documents, and a user's text.

    n_words:     English words of training text
    clone_share: share of the other languages in all training text, divided evenly among them
    text:        path of a user's own English, one document per line, told instead of the stories of the world
    """
    world, own = World(seed), read_text(text) if text else None
    n_others = len(languages) - 1
    n_other_words = max(int(n_words * clone_share / (1 - clone_share) / n_others), LEAST_WORDS)
    shares = [1 - clone_share] + n_others * [clone_share / n_others]

    def documents(index, split):
        train_words = n_other_words if index else n_words
        stories = iter(own_stories(own, split, index, shares)) if own else None
        return world.documents("clone" if index else "en", VAL_WORDS if split == "val" else train_words,
                               2 * index + (2 if split == "val" else 1), stories)

    english = documents(0, "train")
    first = list(itertools.islice(english, TOKENIZER_DOCUMENTS))
    english = itertools.chain(first, english)                        # the first ones are not generated twice
    tokenizer = train_tokenizer(first, vocab_size)
    base_vocab = tokenizer.get_vocab_size()
    n_ids = base_vocab * (len(languages) + 1)                        # with a new language
    meta = dict(format=FORMAT, languages=list(languages), new=[], seed=seed, base_vocab=base_vocab,
                disjoint=True, dtype="uint16" if n_ids <= 65_536 else "uint32", new_vocab={},
                spaces=dict.fromkeys(languages, True), documents={}, words={}, bytes={}, tokens={},
                word_order={name: language_order(name) for name in languages[1:]},
                source=f"data/world with the text of {Path(text).name}" if text else "data/world")
    with whole_folder(folder) as temporary:
        write_text(temporary / "tokenizer.json", tokenizer.to_str(pretty=True))
        meta["tokenizer"] = file_digest(temporary / "tokenizer.json")
        for (index, name), split in itertools.product(enumerate(languages), ("train", "val")):
            texts = english if (name, split) == ("en", "train") else documents(index, split)
            write_tokens(temporary, f"{name}.{split}", texts, tokenizer, index, meta)
        tokens = np.fromfile(temporary / "en.train.bin", meta["dtype"], DICTIONARY_TOKENS)
        words, sentences = frequent_words(tokens, tokenizer), world.sentences("test", 300)
        for name in languages[1:]:
            write_lines(temporary / f"dictionary.{name}.tsv",        # [PreAlign: gold dictionary]
                        (f"{word}\t{word}" for word in words))
            write_lines(temporary / f"pairs.{name}.test.tsv", (f"{line}\t{line}" for line in sentences))
        meta["counts"] = dict(dictionary=len(words), pairs=len(sentences),
                              tasks=write_items(temporary, world_items(seed)))
        if own:
            write_lines(temporary / "new_text.txt", own[10::20])
        write_json(temporary / "meta.json", meta)


def is_whole(folder):
    try:
        return bool(read_meta(folder))
    except UserError:
        return False


def load(cache, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Find the folder of these settings; build it if it is missing or damaged (some seconds): -> Path."""
    sources = SOURCES + [Path(text)] if text and os.path.isfile(text) else SOURCES
    folder = Path(cache) / (f"s{seed}-{'-'.join(languages)}-w{n_words}-c{clone_share:g}-v{vocab_size}"
                            f"{'-' + Path(text).stem if text else ''}-{checksum(sources)}")
    if not is_whole(folder):
        with locked(f"{folder}.lock", wait=True):
            if not is_whole(folder):                                 # no other process has built it meanwhile
                shutil.rmtree(folder, ignore_errors=True)
                build(folder, seed, languages, n_words, clone_share, vocab_size, text)
    return folder


def add_language(folder, name, n_tokens):
    """Write n_tokens of training text, and validation text, of a language that pretraining does not meet.

    Nothing is done if the folder has that many.  All languages added to a folder tell the same stories, in
    different word orders.  With a user's text they tell the documents kept for them, perhaps in fewer tokens.

    Raises UserError for an unknown language and for one of pretraining.
    """
    folder, order = Path(folder), language_order(name)
    with locked(f"{folder}.lock", wait=True):
        meta = read_meta(folder)
        if name in meta["languages"]:
            raise UserError(f"{name} is a pretraining language of {folder}: choose another new language")
        if meta["tokens"].get(f"{name}.train", 0) >= n_tokens:
            return
        if name in meta["new"]:     # a kill between two files must not leave a meta.json with their old sizes
            meta["new"].remove(name)
            for split in ("train", "val"):
                del meta["tokens"][f"{name}.{split}"]
            save_meta(folder, meta)
        meta["spaces"][name], meta["word_order"][name] = True, order
        world, tokenizer = World(meta["seed"]), Tokenizer.from_file(str(folder / "tokenizer.json"))
        for i, (split, n) in enumerate({"train": n_tokens, "val": NEW_VAL_TOKENS}.items()):
            # n words have at least n tokens
            texts = world.documents("clone", n, 1000 + 2 * meta["seed"] + i, kept_stories(folder, split))
            write_tokens(folder, f"{name}.{split}", texts, tokenizer, len(meta["languages"]), meta, limit=n)
        meta["new"].append(name)
        save_meta(folder, meta)


def kept_stories(folder, split):
    """Read the documents of a user's text that new languages tell: -> iterator, None without such a text."""
    path = folder / "new_text.txt"
    if not path.exists():
        return None
    return (text for i, text in enumerate(documents_of(path)) if (i % 5 == 0) == (split == "val"))


def save_meta(folder, meta):
    with replaced(folder / "meta.json") as path:
        write_json(path, meta)
