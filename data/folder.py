"""The prepared folder: what it holds, how it is written whole or not at all, and how it is checked.

  meta.json               format 1; languages (of pretraining, English first) and new (held out of tokenizer
                          and pretraining); base_vocab V; disjoint; dtype of the .bin files; documents, words,
                          bytes and tokens of each "<lang>.<split>"; tokenizer, the sha256 of tokenizer.json;
                          new_vocab {new language: size of its vocabulary, V and its new pieces}; spaces
                          {lang: whether spaces part its words}; tokens_per_word {lang: on validation text}
                          and tokens_per_word_before {new language: the same with the old tokenizer}; counts,
                          what is printed at the end; seed, source and licence
  tokenizer.json          byte-level BPE of all languages of pretraining, learned on training text; id 0 opens
                          a document
  tokenizer.<new>.json    the same and the pieces of one new language: old ids first, then V, V + 1, ...
  <lang>.<split>.bin      train, val and test: token ids of all documents, shuffled, each behind the
                          separator.  With `disjoint`, ids of language i are shifted by i * V
  dictionary.<lang>.tsv   English TAB translation; several lines for a word with several translations; as
                          written inside of sentences, frequent words first
  lexicon.<lang>.tsv      the same for held-out words: frequent ones, whose translations are frequent, too
  pairs.<lang>.<split>.tsv  train, val and test: English TAB translation, a sentence pair a line
  tasks/<task>.<split>.jsonl  an item a line: {"id": str, "task": str, "prompt": {lang: str}, "candidates":
                          [str, ...], the same words in all languages, or {lang: [str, ...]}, "answer": int}.
                          An item may lack languages; `same` asks in English alone
  baselines.json          {"tasks": {task: {lang: {n, chance, ...}}}, "retrieval": {lang: {n, chance, ...}}},
                          see data/baselines.py

Words are what stands between spaces; in a language without spaces, characters.  bytes and words do not count
the space that opens each line (see corpus.text_lines), tokens count the separators.
"""
import hashlib
import itertools
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np

from data import baselines, dictionaries
from data.corpus import pack, text_lines, train_tokenizer
from data.files import whole_folder
from data.text import DataError, chunks, count_words, has_spaces, sample
from data.vocabulary import extend

FORMAT = 1
KEYS = ("languages", "new", "base_vocab", "bytes", "disjoint", "dtype", "spaces", "tokens", "tokenizer",
        "words", "tokens_per_word", "tokens_per_word_before")  # what readers of meta.json ask for
SPLITS = ("train", "val", "test")
TOGETHER = 2**24                     # characters shuffled together
AT_ONCE = 2**20                      # characters that become tokens at once: a token takes some 200 bytes
MOST_TIMES = 10                      # the tokenizer's training reads a small language this often at most


@dataclass
class Source:
    """What a folder is made from.  The functions start anew at each call: nothing has to fit into memory.

    languages, new: of pretraining, English first, and those it does not meet
    text(lang, split), pairs(lang, split): iterators over documents and over (English, translation)
    paired:  languages with sentence pairs
    given:   {lang: {English: [translation, ...]}}
    learned: languages that are taught a dictionary learned from their pairs although one is given; where none
             is given, that is what is done anyway
    items:   list of (split, item), skipped: {task: rows without a sentence}, about: source and licence
    """
    languages: list
    new: list
    text: Callable
    pairs: Callable
    paired: list = field(default_factory=list)
    given: dict = field(default_factory=dict)
    learned: list = field(default_factory=list)
    items: list = field(default_factory=list)
    skipped: dict = field(default_factory=dict)
    about: dict = field(default_factory=dict)


def digest(path):
    """sha256 of a file, hexadecimal."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_meta(folder):
    """meta.json of a prepared folder.

    Raises DataError for a folder that was not prepared, is of another format, lost a file's end, or whose
    tokenizer.json is not the one it was prepared with.
    """
    folder = Path(folder)
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{folder} is no prepared folder (it has no meta.json): make one with "
                        "python data/prepare.py") from None
    except ValueError:
        meta = None
    if not isinstance(meta, dict):
        raise DataError(f"{folder}/meta.json is damaged (no JSON object): prepare the folder again")
    if meta.get("format") != FORMAT:
        raise DataError(f"{folder} is of format {meta.get('format')}, this program reads {FORMAT}: "
                        "prepare it again")
    if missing := [key for key in KEYS if key not in meta]:
        raise DataError(f"{folder}/meta.json is damaged (no {missing[0]}): prepare the folder again")
    if not (folder / "tokenizer.json").exists() or digest(folder / "tokenizer.json") != meta["tokenizer"]:
        raise DataError(f"{folder} is a folder prepared by another tokenizer than its tokenizer.json: "
                        "prepare it again")
    for name, n in meta["tokens"].items():
        path = folder / f"{name}.bin"
        if not path.exists() or path.stat().st_size != n * np.dtype(meta["dtype"]).itemsize:
            raise DataError(f"{path} is not of the {n} tokens that meta.json says: prepare the folder again")
    return meta


def balanced(samples):
    """Documents for the tokenizer: a language with little text is read again and again, up to MOST_TIMES."""
    size = {name: sum(map(len, documents)) for name, documents in samples.items()}
    for name, documents in samples.items():
        times = min(round(max(size.values()) / size[name]), MOST_TIMES)
        yield from itertools.chain.from_iterable([documents] * times)


def write_tokens(path, documents, tokenizer, offset, dtype, spaces, rng):
    """Encode and write the documents of one stream: -> dict(documents, words, bytes, tokens)."""
    counts = dict(documents=0, words=0, bytes=0, tokens=0)
    with open(path, "wb") as file:
        for chunk in chunks(documents, TOGETHER):
            shuffled = (chunk[i] for i in rng.permutation(len(chunk)))
            for batch in chunks(shuffled, AT_ONCE):
                tokens = pack(batch, tokenizer, None, None, None)
                file.write((tokens + offset).astype(dtype).tobytes())
                counts["documents"] += len(batch)
                counts["words"] += sum(count_words(d, spaces) for d in batch)
                counts["bytes"] += sum(len(d.encode("utf-8")) for d in batch)
                counts["tokens"] += len(tokens)
    return counts


def write_lines(path, lines):
    """Lines, one at a time: -> the number of lines written."""
    n = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for line in lines:
            file.write(line + "\n")
            n += 1
    return n


def write_entries(path, entries):
    """A dictionary, a pair of words a line: -> the number of lines."""
    return write_lines(path, (f"{word}\t{t}" for word, many in entries.items() for t in many))


class Writer:
    """One folder in the making."""

    def __init__(self, folder, source, seed, disjoint, documents, pairs, words):
        """See write.  Reads a sample of every language, for its words and its pieces."""
        self.folder, self.source, self.seed, self.disjoint = folder, source, seed, disjoint
        self.most_documents, self.most_pairs, self.most_words = documents, pairs, words
        self.languages = [*source.languages, *source.new]
        self.samples = {name: sample(self.text(name, "train")) for name in self.languages}
        for name, documents in self.samples.items():
            if not documents:
                raise DataError(f"the training text of {name} is empty: it needs documents, one a line")
        self.spaces = {name: has_spaces(documents) for name, documents in self.samples.items()}
        self.words = {name: dictionaries.Words(documents) for name, documents in self.samples.items()}
        self.counts = dict(languages={name: {} for name in self.languages}, tasks={}, skipped=source.skipped)

    def text(self, name, split):
        """Documents of one stream, as many as are wanted."""
        most = self.most_documents if split == "train" and name != self.languages[0] else None
        return itertools.islice(self.source.text(name, split), most)

    def pairs(self, name, split):
        """Sentence pairs, as many as are wanted."""
        return itertools.islice(self.source.pairs(name, split), self.most_pairs if split == "train" else None)

    def streams(self, vocab_size, new_pieces):
        """Tokenizers and tokens: -> the part of meta.json about them."""
        known = {name: self.samples[name] for name in self.source.languages}
        tokenizer = train_tokenizer(balanced(known), vocab_size)
        tokenizers = {name: extend(tokenizer, self.samples[name], new_pieces) for name in self.source.new}
        base = tokenizer.get_vocab_size()
        # not tokenizer.save: it does not say what went wrong
        write_text(self.folder / "tokenizer.json", tokenizer.to_str(pretty=True))
        for name, longer in tokenizers.items():
            write_text(self.folder / f"tokenizer.{name}.json", longer.to_str(pretty=True))
        new_vocab = {name: longer.get_vocab_size() for name, longer in tokenizers.items()}
        rows = max([base * (len(self.source.languages) if self.disjoint else 1), *new_vocab.values()])
        meta = dict(base_vocab=base, disjoint=self.disjoint, dtype="uint16" if rows <= 65_536 else "uint32",
                    tokenizer=digest(self.folder / "tokenizer.json"), new_vocab=new_vocab, spaces=self.spaces,
                    documents={}, words={}, bytes={}, tokens={},
                    tokens_per_word={}, tokens_per_word_before={})
        for (i, name), split in itertools.product(enumerate(self.languages), SPLITS):
            counts = write_tokens(
                self.folder / f"{name}.{split}.bin", self.text(name, split), tokenizers.get(name, tokenizer),
                i * base * self.disjoint, meta["dtype"], self.spaces[name],
                np.random.default_rng((self.seed, 404, i, SPLITS.index(split))))
            for key, n in counts.items():
                meta[key][f"{name}.{split}"] = n
            self.counts["languages"][name][split] = counts["documents"]
        for name in self.languages:
            tokens, documents, words = (meta[key][f"{name}.val"] for key in ("tokens", "documents", "words"))
            meta["tokens_per_word"][name] = (tokens - documents) / max(words, 1)
            if name in self.source.new:
                before = sum(len(e) for batch in chunks(self.text(name, "val"), AT_ONCE)
                             for e in tokenizer.encode_batch([text_lines(d) for d in batch]))
                meta["tokens_per_word_before"][name] = before / max(words, 1)
        return meta

    def dictionary(self, name):
        """Dictionary, test words and sentence pairs of one language.

        -> {"dictionary" or "learned": {word of the language: English}}, for the lines without a model
        """
        english, other = self.words[self.languages[0]], self.words[name] if self.spaces[name] else None
        found, counts = {}, self.counts["languages"][name]
        if name in self.source.paired:
            for split in SPLITS:
                counts[f"pairs_{split}"] = write_lines(self.folder / f"pairs.{name}.{split}.tsv",
                                                       map("\t".join, self.pairs(name, split)))
            if other and self.spaces[self.languages[0]]:
                found["learned"] = dictionaries.learn(self.pairs(name, "train"))
        if name in self.source.given:
            found["dictionary"] = self.source.given[name]
        chosen = {kind: dictionaries.choose(entries, english, other) for kind, entries in found.items()}
        taught = "learned" if name in self.source.learned or "dictionary" not in chosen else "dictionary"
        if taught in chosen:
            divided = {kind: dictionaries.divide(entries, english, other, self.seed, self.most_words)
                       for kind, (entries, _) in chosen.items()}
            known, asked = divided[taught][0], divided.get("dictionary", divided[taught])[1]
            counts.update(
                dictionary=write_entries(self.folder / f"dictionary.{name}.tsv", known),
                dictionary_words=len(known), learned=taught == "learned", never_occur=chosen[taught][1],
                coverage=dictionaries.coverage(known, english),
                lexicon=write_entries(self.folder / f"lexicon.{name}.tsv", asked), lexicon_words=len(asked))
        back = dict(dictionary=baselines.backwards, learned=baselines.by_rank)
        return {kind: back[kind](entries, english) for kind, (entries, _) in chosen.items()}

    def tasks(self, backs):
        """Items and the lines that need no model."""
        (self.folder / "tasks").mkdir()
        by_file = {}
        for split, item in self.source.items:
            by_file.setdefault((item["task"], split), []).append(item)
        for (task, split), items in sorted(by_file.items()):
            self.counts["tasks"].setdefault(task, {})[split] = write_lines(
                self.folder / "tasks" / f"{task}.{split}.jsonl",
                (json.dumps(item, ensure_ascii=False) for item in items))
        retrieval = {}
        for name in self.source.paired:
            pairs = list(itertools.islice(self.pairs(name, "test"), 1000))
            if len(pairs) > 1:
                retrieval[name] = baselines.of_pairs(pairs, backs.get(name, {}))
        by_task = baselines.of_tasks(self.source.items, self.languages, backs, self.samples)
        write_json(self.folder / "baselines.json", dict(tasks=by_task, retrieval=retrieval))


def write_text(path, content):
    path.write_text(content, encoding="utf-8", newline="\n")


def write_json(path, content):
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write(folder, source, vocab_size=4000, new_pieces=2000, seed=0, disjoint=False, documents=None,
          pairs=None, words=None):
    """Make the folder; it appears whole or not at all: -> meta.

    documents, pairs, words: most training documents of a language that is not English, sentence pairs to
                             train on, and English words of a dictionary taught; None for all

    Raises DataError for a mistake in the data or a folder that exists, OSError if the disk is full.
    """
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists: delete it, or choose another --out")
    with whole_folder(folder, mark=f"{os.getpid()}.") as temporary:
        writer = Writer(temporary, source, seed, disjoint, documents, pairs, words)
        meta = dict(format=FORMAT, languages=source.languages, new=source.new, seed=seed)
        meta |= writer.streams(vocab_size, new_pieces)
        writer.tasks({name: writer.dictionary(name) for name in writer.languages[1:]})
        write_json(temporary / "meta.json", meta | dict(counts=writer.counts) | source.about)
    return read_meta(folder)
