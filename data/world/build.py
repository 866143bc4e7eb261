"""Write the folder of the built-in world; data/folder.py describes its files.

Only English is generated.  Token t of English is token t + i * V in the i-th language, separators and
punctuation included, and some languages change the order of words: every translation is known.
"""
import itertools
import os
import re
import shutil
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data.corpus import languages_of_rows
from data.files import UserError, locked, refuse, whole_folder
from data.folder import (FORMAT, language_order, read_meta, token_classes, train_tokenizer, write_items,
                         write_lines, write_meta, write_stream, write_text)
from data.tasks import MOST_SHOTS
from data.text import LEAST, documents_of
from data.world.lexicon import LABELS, QUESTIONS
from data.world.world import World

# the files that decide what the folder holds
SOURCES = [Path(__file__).parent / name
           for name in ("lexicon.txt", "lexicon.py", "world.py", "build.py", "../corpus.py", "../folder.py",
                        "../tasks.py", "../text.py")]
VAL_WORDS = LEAST_WORDS = 20_000   # words of each validation text, and of the smallest training text
DICTIONARY_TOKENS = 2_000_000      # the dictionary has the words of so much English text ...
DICTIONARY_COUNT = 5               # ... that occur so often
NEW_VAL_TOKENS = 25_000            # tokens that the validation text of a new language has at least


def world_items(seed):
    """Generate all items of the folder: -> list of (split, item as a dict)."""
    world, parts, exercises, found = World(seed), [], [], []
    for task, difficulty in QUESTIONS:
        n_train = 5000 if task == "translate" else 500
        if task in LABELS and difficulty == "lexical":              # for zero-shot transfer
            n_train = 4000
        train = world.items(task, "train", n_train, difficulty)
        parts += [(task, "train", train), (task, "val", world.items(task, "dev", MOST_SHOTS, difficulty)),
                  (task, "test", world.items(task, "test", 500, difficulty))]
        if task != "translate":
            exercises.append(train[:500])
    parts.append(("exercise", "train", itertools.chain(*zip(*exercises))))       # the tasks take turns
    parts.append(("knowledge", "test", world.knowledge()))
    for task, split, items in parts:
        for i, item in enumerate(items):
            row = dict(vars(item), id=f"{task}-{item.difficulty}-{split}-{i}", task=task)
            if not item.told:
                del row["told"]
            found.append((split, row))
    return found


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
    """Read the different documents of a user's English, one per line of the file: -> [str]."""
    documents = list(dict.fromkeys(documents_of(path)))     # a copy in the validation text would be known
    refuse(len(documents) < LEAST, f"{path} has {len(documents)} different non-empty lines: at least {LEAST} "
           "are needed, one document per line")
    return documents


def divide(documents, shares):
    """Divide a user's documents, told instead of stories, among streams: -> {(index, split): iterator}.

    Of twenty documents, one is for validation (the languages take turns) and one is kept for new languages.
    The others are divided by shares.  No two streams share a document, so nothing is parallel by accident.
    """
    train = [document for i, document in enumerate(documents) if i % 20 not in (0, 10)]
    languages, streams = languages_of_rows(0, len(train), shares), {}
    for index in range(len(shares)):
        streams[index, "train"] = iter([train[i] for i in np.flatnonzero(languages == index)])
        streams[index, "val"] = iter(documents[::20][index::len(shares)])
    return streams


def build(folder, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Generate the world, train the tokenizer on its English training text and write the folder.

    The folder appears when it is complete.
    n_words:     English words of training text
    clone_share: share of the other languages in all training text, divided evenly among them
    text:        path of a user's own English, one document per line, told instead of the stories of the world
    """
    n_others = len(languages) - 1
    n_other_words = max(int(n_words * clone_share / (1 - clone_share) / n_others), LEAST_WORDS)
    own = read_text(text) if text else []
    stories = divide(own, [1 - clone_share] + n_others * [clone_share / n_others]) if own else {}
    world, streams = World(seed), {}
    for index in range(len(languages)):
        role, n_train = ("clone", n_other_words) if index else ("en", n_words)
        for split, n, number in (("train", n_train, 2 * index + 1), ("val", VAL_WORDS, 2 * index + 2)):
            streams[index, split] = world.documents(role, n, number, stories.get((index, split)))
    first = list(itertools.islice(streams[0, "train"], 20_000))      # they train the tokenizer, too
    streams[0, "train"] = itertools.chain(first, streams[0, "train"])
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
        for (index, split), texts in streams.items():
            write_stream(temporary, f"{languages[index]}.{split}", texts, tokenizer, meta, index)
        tokens = np.fromfile(temporary / "en.train.bin", meta["dtype"], DICTIONARY_TOKENS)
        words, sentences = frequent_words(tokens, tokenizer), world.sentences("test", 300)
        for name in languages[1:]:
            write_lines(temporary / f"dictionary.{name}.tsv",        # [PreAlign: gold dictionary]
                        (f"{word}\t{word}" for word in words))
            write_lines(temporary / f"pairs.{name}.test.tsv", (f"{line}\t{line}" for line in sentences))
        meta["counts"] = dict(dictionary=len(words), pairs=len(sentences),
                              tasks=write_items(temporary, world_items(seed)))
        if own:
            write_lines(temporary / "new_text.txt", own[10::20])     # for new languages
        write_meta(temporary, meta)


def load(cache, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Find the folder of these settings; build it if it is missing or damaged (some seconds): -> Path."""
    sources = SOURCES + [Path(text)] if text and os.path.isfile(text) else SOURCES
    checksum = zlib.crc32(b"".join(path.read_bytes() for path in sources))
    folder = Path(cache) / (f"s{seed}-{'-'.join(languages)}-w{n_words}-c{clone_share:g}-v{vocab_size}"
                            f"{'-' + Path(text).stem if text else ''}-{checksum:08x}")
    with locked(f"{folder}.lock", wait=True):
        try:
            read_meta(folder)
        except UserError:
            shutil.rmtree(folder, ignore_errors=True)
            build(folder, seed, languages, n_words, clone_share, vocab_size, text)
    return folder


def add_language(folder, name, n_tokens):
    """Write training text of at least n_tokens, and validation text, of a language held out of pretraining.

    Nothing is done if the folder has that many.  A longer text begins with the shorter one: the old meta.json
    stays true until it is replaced.  A user's text may have fewer tokens: those kept for new languages.
    """
    folder, order = Path(folder), language_order(name)
    with locked(f"{folder}.lock", wait=True):
        meta = read_meta(folder)
        refuse(name in meta["languages"],
               f"{name} is a pretraining language of {folder}: choose another new language")
        if meta["tokens"].get(f"{name}.train", 0) >= n_tokens:
            return
        meta["spaces"][name], meta["word_order"][name] = True, order
        world, tokenizer = World(meta["seed"]), Tokenizer.from_file(str(folder / "tokenizer.json"))
        own, stories = folder / "new_text.txt", dict(train=None, val=None)
        if own.exists():
            texts = list(documents_of(own))
            stories = dict(train=(text for i, text in enumerate(texts) if i % 5), val=iter(texts[::5]))
        for i, (split, n) in enumerate({"train": n_tokens, "val": NEW_VAL_TOKENS}.items()):
            # n words have at least n tokens
            texts = world.documents("clone", n, 1000 + 2 * meta["seed"] + i, stories[split])
            write_stream(folder, f"{name}.{split}", texts, tokenizer, meta, len(meta["languages"]))
        if name not in meta["new"]:
            meta["new"].append(name)
        write_meta(folder, meta)
