"""Write a prepared folder (data/folder.py) of real languages from a Source of text, pairs and items."""
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np

from data.files import refuse, whole_folder
from data.folder import (FORMAT, SPLITS, checksum, read_meta, train_tokenizer, write_items, write_json,
                         write_lines, write_meta, write_stream, write_text)
from data.real import baselines, dictionaries, fit
from data.real.vocabulary import extend, of_checkpoint
from data.text import chunks, has_spaces, sample

CONTEXT_LEN = 128                    # default context length of training: every stream must hold rows for it
MARGIN = 2                           # a row also has the last target, and a random window one token to spare
SHUFFLED = 2**24                     # characters shuffled together
MOST_REPEATS = 10                    # the tokenizer's training repeats a small language at most this often
LITTLE = 200_000                     # tokens of a language: with fewer, PreAlign may not lower its perplexity
MOST_PAIRS = 1000                    # test pairs of the retrieval baselines


@dataclass
class Source:
    """The material of a folder.  text and pairs start again at each call, so it need not fit into memory."""
    languages: list                                     # of pretraining, English first
    new: list                                           # languages that pretraining does not meet
    text: Callable                                      # (language, split) -> iterable of documents
    pairs: Callable                                     # (language, split) -> iterable of (English, other)
    paired: list = field(default_factory=list)          # languages with sentence pairs
    given: dict = field(default_factory=dict)           # {language: {English: [translation, ...]}}
    items: list = field(default_factory=list)           # of (split, item)
    skipped: dict = field(default_factory=dict)         # {task: number of rows without a sentence}
    apart: bool = False       # whether the sentences of validation and test are removed from training text
    about: dict = field(default_factory=dict)           # source and licence, for meta.json
    files: dict = field(default_factory=dict)           # {language: file}, for error messages


def balanced(samples):
    """Yield the documents for the tokenizer: a small language is repeated, at most MOST_REPEATS times."""
    size = {name: sum(map(len, documents)) for name, documents in samples.items()}
    for name, documents in samples.items():
        yield from documents * min(round(max(size.values()) / size[name]), MOST_REPEATS)


def shuffled(documents, rng):
    """Yield the documents of one stream in a random order."""
    for chunk in chunks(documents, SHUFFLED):
        yield from (chunk[i] for i in rng.permutation(len(chunk)))


def unique(pairs):
    """Yield the pairs neither of whose sentences has occurred before on its side."""
    seen = set()
    for pair in pairs:
        if seen.isdisjoint(enumerate(pair)):
            yield pair
        seen.update(enumerate(pair))


class Writer:
    """Writes the files of one folder.  Its __init__ reads a sample of every language."""

    def __init__(self, folder, source, seed, disjoint, max_documents, max_pairs, max_words):
        self.folder, self.source, self.seed, self.disjoint = folder, source, seed, disjoint
        self.max_documents, self.max_pairs, self.max_words = max_documents, max_pairs, max_words
        self.languages = [*source.languages, *source.new]
        self.label = {name: source.files.get(name, f"text of {name}") for name in self.languages}
        self.tested = set()                  # documents and sentences of pairs, of validation and test
        for name, split in itertools.product(self.languages, SPLITS[1:]):
            pairs = source.pairs(name, split) if name in source.paired else ()
            self.tested.update(source.text(name, split), *pairs)
        self.samples = {name: sample(self.text(name, "train")) for name in self.languages}
        self.words = {}
        for name, documents in self.samples.items():
            refuse(not documents, f"{self.label[name]}: no training text, it needs one document per line")
            known = set(itertools.chain.from_iterable(source.given.get(name, {}).values()))
            self.words[name] = dictionaries.WordCounts(documents, None if has_spaces(documents) else known)
        self.counts = dict(languages={name: {} for name in self.languages}, tasks={}, skipped=source.skipped)
        for name in self.languages[1:]:
            self.check(name)

    def check(self, name):
        """Check pairs and dictionary of one language against the texts before anything is written."""
        english, other = self.words[self.languages[0]], self.words[name]
        refuse(self.samples[name] == self.samples[self.languages[0]],
               f"{self.label[name]}: the same text as that of {self.languages[0]}")
        if name in self.source.paired:
            pairs = itertools.islice(self.source.pairs(name, "train"), fit.PAIRS)
            fit.of_pairs(name, list(pairs), english, other)
        if name in self.source.given:
            self.counts["languages"][name]["fit"] = fit.of_dictionary(
                name, self.source.given[name], english, other)

    def text(self, name, split):
        """The documents of one stream, limited as requested."""
        documents = self.source.text(name, split)
        if split != "train":
            return documents
        if self.source.apart:
            documents = (document for document in documents if document not in self.tested)
        return itertools.islice(documents, None if name == self.languages[0] else self.max_documents)

    def pairs(self, name, split):
        """The sentence pairs of one language, limited as requested: no sentence of validation or test text or
        pairs is in a training pair, and each occurs once."""
        pairs = self.source.pairs(name, split)
        if split != "train":
            return unique(pairs)
        return itertools.islice((pair for pair in pairs if self.tested.isdisjoint(pair)), self.max_pairs)

    def write_streams(self, vocab_size, new_subwords, checkpoint):
        """Write tokenizers and streams: -> the part of meta.json about them."""
        known, separator, tokenizers, new_vocab = self.source.languages, 0, {}, {}
        if checkpoint:
            tokenizer, base, separator = of_checkpoint(checkpoint)
        else:
            tokenizer = train_tokenizer(balanced({name: self.samples[name] for name in known}), vocab_size)
            base = tokenizer.get_vocab_size()
        write_text(self.folder / "tokenizer.json", tokenizer.to_str(pretty=True))
        for name in self.source.new:
            tokenizers[name], new_vocab[name] = extend(tokenizer, self.samples[name], new_subwords, base)
            refuse(new_vocab[name] == base, f"{self.label[name]}: too little text for new subwords: use more")
            tokenizers[name].encode_special_tokens = True      # the file does not keep this
            write_text(self.folder / f"tokenizer.{name}.json", tokenizers[name].to_str(pretty=True))
        n_rows = max([base * len(known) if self.disjoint else base, *new_vocab.values()])
        meta = dict(base_vocab=base, disjoint=self.disjoint, dtype="uint16" if n_rows <= 65_536 else "uint32",
                    new_vocab=new_vocab, spaces={name: counts.spaces for name, counts in self.words.items()},
                    word_order={}, documents={}, words={}, bytes={}, tokens={}, separator=separator)
        if checkpoint:
            meta["checkpoint"] = checksum(Path(checkpoint) / "tokenizer.json")
        for (i, name), split in itertools.product(enumerate(self.languages), SPLITS):
            rng = np.random.default_rng((self.seed, 404, i, SPLITS.index(split)))
            counts = write_stream(self.folder, f"{name}.{split}", shuffled(self.text(name, split), rng),
                                  tokenizers.get(name, tokenizer), meta, i)
            refuse(counts["tokens"] < CONTEXT_LEN + MARGIN,
                   f"{self.label[name]}: its {split} part has {counts['tokens']} tokens, context length "
                   f"{CONTEXT_LEN} needs {CONTEXT_LEN + MARGIN}: use more and different documents")
        return meta

    def write_dictionary(self, name):
        """Write dictionary, held-out words and sentence pairs of one language.

        -> {"dictionary" or "learned": {word of the language: English}}, for the baselines
        """
        english, other = self.words[self.languages[0]], self.words[name]
        found, counts = {}, self.counts["languages"][name]
        if name in self.source.paired:
            for split in SPLITS:
                path = self.folder / f"pairs.{name}.{split}.tsv"
                counts[f"pairs_{split}"] = write_lines(path, map("\t".join, self.pairs(name, split)))
            if english.spaces and other.spaces:
                found["learned"] = dictionaries.learn(self.pairs(name, "train"))
        if name in self.source.given:
            found["dictionary"] = self.source.given[name]
        inverses = {}
        # training reads the last one: the given dictionary, or else the learned one
        for kind, entries in found.items():
            selected, dropped = dictionaries.select(entries, english, other)
            inverses[kind] = baselines.invert(selected, english, ranked=kind == "learned")
        if found:
            train, held_out = dictionaries.split(selected, english, other, self.seed, self.max_words)
            for file, entries in (("dictionary", train), ("lexicon", held_out)):
                rows = (f"{word}\t{t}" for word, translations in entries.items() for t in translations)
                counts[file] = write_lines(self.folder / f"{file}.{name}.tsv", rows)
                counts[f"{file}_words"] = len(entries)
            counts.update(learned=kind == "learned", never_occur=dropped,
                          coverage=dictionaries.coverage(train, english))
        return inverses

    def write_tasks(self, inverses):
        """Write items and baselines.  inverses: {language: result of write_dictionary}"""
        self.counts["tasks"] = write_items(self.folder, self.source.items)
        retrieval = {}
        for name in self.source.paired:
            pairs = list(itertools.islice(self.pairs(name, "test"), MOST_PAIRS))
            if len(pairs) > 1:
                retrieval[name] = baselines.of_pairs(pairs, inverses[name], self.words[name].split)
        tasks = baselines.of_tasks(self.source.items, self.languages, inverses, self.samples,
                                   {name: counts.split for name, counts in self.words.items()})
        write_json(self.folder / "baselines.json", dict(tasks=tasks, retrieval=retrieval))


def write(folder, source, vocab_size=4000, new_subwords=2000, seed=0, disjoint=False, max_documents=None,
          max_pairs=None, max_words=None, checkpoint=None):
    """Make a folder from a Source, completely or not at all: -> its meta.json as a dict.

    vocab_size, new_subwords: size of the tokenizer, and of its extension for each new language
    disjoint: give every language its own token ids (control)
    max_...:  of training, for each language: documents (except English), sentence pairs, dictionary words
    checkpoint: folder of a public checkpoint whose tokenizer is taken instead of training one
    """
    folder = Path(folder)
    with whole_folder(folder, mark=f"{os.getpid()}.") as temporary:
        writer = Writer(temporary, source, seed, disjoint, max_documents, max_pairs, max_words)
        meta = dict(format=FORMAT, languages=source.languages, new=source.new, seed=seed)
        meta |= writer.write_streams(vocab_size, new_subwords, checkpoint)
        writer.write_tasks({name: writer.write_dictionary(name) for name in writer.languages[1:]})
        write_meta(temporary, meta | dict(counts=writer.counts) | source.about)
    return read_meta(folder)


def summary(folder, meta):
    """Describe a folder in numbers: -> text of several lines."""
    shared = "for each language" if meta["disjoint"] else "shared by all languages"
    rows = [f"{folder}: {meta['base_vocab']} subwords, {shared}"]
    for name in [*meta["languages"], *meta["new"]]:
        counts, unit = meta["counts"]["languages"][name], "word" if meta["spaces"][name] else "character"
        documents = ", ".join(f"{meta['documents'][f'{name}.{split}']:,} {split}" for split in SPLITS)
        # each document has a separator
        n_words, n_tokens, n_documents = (
            meta[key][f"{name}.train"] for key in ("words", "tokens", "documents"))
        rows += [f"{name}: {n_words:,} {unit}s of training text, {n_tokens:,} tokens; documents: {documents}",
                 f"    {(n_tokens - n_documents) / n_words:.2f} tokens per {unit}"]
        if name in meta["new"]:
            rows[-1] += f" with {meta['new_vocab'][name] - meta['base_vocab']} new subwords"
        if "dictionary" in counts:
            kind = "learned dictionary" if counts["learned"] else "dictionary"
            rows += [f"    {kind}: {counts['dictionary']:,} pairs of {counts['dictionary_words']:,} words, "
                     f"{counts['coverage']:.0%} of English text; {counts['lexicon_words']} words held out",
                     f"    dropped: {counts['never_occur']:,} pairs (a word never occurs, or a phrase)"]
            if found := counts.get("fit"):
                rows += [f"    covers {found['english']:.0%} of the words of en, {found['other']:.0%} of the "
                         f"{unit}s of {name}; {found['occur']:.1%} of the translations occur in its text"]
                if min(found["english"], found["occur"]) < fit.SOME:
                    rows += [f"    warning: below {fit.SOME:.0%}: little text, or not from English to {name}"]
        elif name != "en":
            rows.append("    no dictionary: give one, or (for a language with spaces) sentence pairs")
        if "pairs_train" in counts:
            rows.append("    sentence pairs: " + ", ".join(f"{counts[f'pairs_{s}']:,} {s}" for s in SPLITS))
    for task, splits in meta["counts"]["tasks"].items():
        rows.append(f"{task}: " + ", ".join(f"{n:,} {split}" for split, n in splits.items()))
        if meta["counts"]["skipped"].get(task):
            rows[-1] += f"; {meta['counts']['skipped'][task]} rows without a sentence skipped"
    longest = min(meta["tokens"].values()) - MARGIN
    rows.append(f"every stream has enough tokens for a context length of up to {longest:,}")
    little = [name for name in meta["languages"][1:] if meta["tokens"][f"{name}.train"] < LITTLE]
    if little:
        rows += [f"fewer than {LITTLE:,} tokens of {', '.join(little)}: PreAlign finds translations there, "
                 "but it may not lower perplexity: data/languages.md"]
    return "\n".join(rows + [f"licence: {line}" for line in meta["licence"]])
