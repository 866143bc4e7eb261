"""From text to batches: one tokenizer, several languages, packed tokens on disk, a dictionary.

  Order       how a made-up language permutes the words of a sentence (reversed, shuffled-k)
  Streams     one packed token stream per language and split; batches as pure functions of (seed, stage, step)
  Corpus      these with the tokenizer of the embedded world (data/prepared.py: of real languages)
  Dictionary  words and their translations as flat arrays, looked up for a whole batch at once
  build       makes the folder of the embedded world (or of a user's own English text)
  load        opens any such folder

English-Clone and its kin share no token with English: token t of English is t + i * |V| in the i-th language
of the run, document separator and punctuation included.

A folder holds tokenizer.json, <language>.<split>.bin (uint16, or uint32 from 65,536 rows on) and meta.json.
"""
import itertools
import json
import os
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data import tasks
from data.files import checksum, locked, named, whole_folder
from data.synthetic import RUNGS, World
from data.text import LEAST, SEPARATOR, DataError, documents_of

SENTENCE_END = set(".?!:;\n")           # a permuted language permutes between two of these
# the same of languages without spaces, as byte-level BPE writes them
WIDE_END = tuple(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(mark)[0][0]
                 for mark in "。？！")
KNOWN = re.compile(r"clone[0-9]{0,4}|reversed|shuffled-([2-9]|[1-9][0-9]{1,3})")


# --- words in a row of tokens -------------------------------------------------------------------------------

def text_lines(text):
    """Every line opens with a space, so that the first word of a line is the same token as elsewhere."""
    return "\n".join(" " + line.strip() for line in text.strip().split("\n"))


def token_classes(tokenizer):
    """Two tables over the vocabulary of one language, (|V|,) bool each: starts a word, ends a sentence.

    A word starts at a leading space or at anything that is neither letter nor digit; other tokens continue
    a word.
    """
    starts, ends = np.ones(tokenizer.get_vocab_size(), bool), np.zeros(tokenizer.get_vocab_size(), bool)
    for token, i in tokenizer.get_vocab().items():
        if token == SEPARATOR:
            ends[i] = True
            continue
        letters = token.replace("Ċ", "\n")          # byte-level BPE writes the space as Ġ, the newline as Ċ
        # a symbol beyond ASCII is a byte of an accented letter: it continues the word
        starts[i] = letters[0] == "Ġ" or (letters[0].isascii() and not letters[0].isalnum())
        ends[i] = letters[0] in SENTENCE_END or letters.startswith(WIDE_END)
    return starts, ends


def permute_words(tokens, starts, ends, order):
    """Reorder the words of each sentence by a fixed rule: tokens (n,) -> (n,).

    The tokens of a word stay together, and the full stop stays last.

    order: 0 reverses the sentence; k >= 2 takes windows of k words and puts their second half first

    >>> letters, starts, ends = np.arange(1, 6), np.ones(6, bool), np.arange(6) == 5
    >>> permute_words(letters, starts, ends, 0), permute_words(letters, starts, ends, 2)
    (array([4, 3, 2, 1, 5]), array([2, 1, 4, 3, 5]))
    """
    word = np.cumsum(starts[tokens]) - 1                          # (n,) index of the word a token is in
    end = ends[tokens]
    sentence = np.cumsum(np.concatenate(([0], end[:-1])))         # (n,) the end mark closes its own sentence
    opens = np.searchsorted(sentence, sentence)                   # (n,) first token of the sentence
    place = word - word[opens]                                    # (n,) position of the word in its sentence
    if order == 0:
        key = -place
    else:
        key = place // order * order + (place % order + (order + 1) // 2) % order
    key = np.where(end, len(tokens), key)
    return tokens[np.lexsort((np.arange(len(tokens)), key, sentence))]


def pack(documents, tokenizer, starts, ends, order):
    """Documents end to end as English tokens, each behind a separator, words in the order given: -> (n,)."""
    encoded = tokenizer.encode_batch([text_lines(document) for document in documents])
    tokens = np.concatenate([np.array([0] + e.ids, np.int64) for e in encoded])
    return tokens if order is None else permute_words(tokens, starts, ends, order)


def language_order(name):
    """None keeps English word order; 0 reverses; k is the window of shuffled-k.

    Raises DataError for an unknown name.
    """
    if not KNOWN.fullmatch(name):
        raise DataError(f"language '{name}' is unknown: take clone, clone2, clone3 ..., reversed or "
                        "shuffled-K (K >= 2)")
    return 0 if name == "reversed" else int(name.split("-")[1]) if name.startswith("shuffled") else None


# --- the dictionary -----------------------------------------------------------------------------------------

def word_keys(tokens, word_start, word_len):
    """One 64-bit key per word: tokens (n,), word_start (W,), word_len (W,) -> (W,) uint64.

    A polynomial, wrapping at 2^64.
    """
    place = np.arange(len(tokens)) - np.repeat(word_start, word_len)  # (n,) place of the token in its word
    power = np.cumprod(np.full(max(int(word_len.max(initial=1)), 1), 0x9E3779B97F4A7C15, np.uint64))
    return np.add.reduceat((tokens.astype(np.uint64) + np.uint64(1)) * power[place], word_start)


def split_words(tokens, starts):
    """Where words begin and how long they are.

    tokens (n,), starts (n,) bool with starts[0] true -> (W,), (W,)
    """
    word_start = np.flatnonzero(starts)
    return word_start, np.diff(np.append(word_start, len(tokens)))


class Dictionary:
    """Words and their translations, several per word, of any number of tokens.

    sources (E, M), source_len (E,): the words; translations (R, M), translation_len (R,): all translations in
    a row, those of word e at first[e] ... first[e] + count[e] - 1.  M is the longest word; rows are padded
    with 0.
    """

    def __init__(self, entries):
        """entries: list of (word, [translation, ...]), each word a tuple of token ids.

        Raises DataError if empty or doubled.
        """
        if not entries:
            raise DataError("the dictionary has no entry: give at least two words with a translation")
        self.entries = entries
        flat = [t for _, many in entries for t in many]
        words, mask = tasks.pad([word for word, _ in entries] + flat)            # (E + R, M) each
        self.sources, self.translations = np.split(words, [len(entries)])        # (E, M), (R, M)
        self.source_len, self.translation_len = np.split(mask.sum(axis=1), [len(entries)])
        self.count = np.array([len(many) for _, many in entries])
        self.first = np.cumsum(self.count) - self.count
        tokens = np.array([t for word, _ in entries for t in word])
        keys = word_keys(tokens, np.cumsum(self.source_len) - self.source_len, self.source_len)
        self._order = np.argsort(keys)
        self._keys = keys[self._order]
        if (self._keys[1:] == self._keys[:-1]).any():
            raise DataError("the dictionary lists a word twice: put all its translations into one entry")

    def __len__(self):
        return len(self.entries)

    def find(self, tokens, word_start, word_len):
        """Entry of every word, -1 where the dictionary has none: -> (W,)."""
        keys = word_keys(tokens, word_start, word_len)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self) - 1)
        return np.where(self._keys[at] == keys, self._order[at], -1)

    def split(self, coverage, seed):
        """A random share of the entries, and the rest (the unseen words).

        -> (Dictionary, Dictionary or None)
        """
        order = np.random.default_rng((seed, 101)).permutation(len(self))
        n = max(2, round(coverage * len(self)))
        seen, rest = ([self.entries[i] for i in sorted(part)] for part in (order[:n], order[n:]))
        return Dictionary(seen), Dictionary(rest) if len(rest) > 1 else None

    def shuffled(self, seed):
        """The control: the same words and translations, wrongly paired (no word keeps its own)."""
        order = np.random.default_rng((seed, 102)).permutation(len(self))
        wrong = dict(zip(order, np.roll(order, 1)))
        return Dictionary([(word, self.entries[wrong[i]][1]) for i, (word, _) in enumerate(self.entries)])

    def batch(self, entries):
        """Words of the chosen entries and one row per translation.

        -> tokens (N, M), mask (N, M) bool, concept (N,)
        """
        rows = np.concatenate([np.arange(self.first[e], self.first[e] + self.count[e]) for e in entries])
        tokens = np.concatenate((self.sources[entries], self.translations[rows]))
        lengths = np.concatenate((self.source_len[entries], self.translation_len[rows]))
        concept = np.concatenate((entries, np.repeat(entries, self.count[entries])))
        width = lengths.max()
        return tokens[:, :width], np.arange(width) < lengths[:, None], concept


# --- the corpus ---------------------------------------------------------------------------------------------

class Streams:
    """Packed text: folder, languages (English first) and streams {(language, split): (n,) token ids}."""

    @property
    def digest(self):
        """What the folder holds, in eight digits: sizes of all parts, and the tokenizer."""
        return checksum([self.folder / "meta.json", self.folder / "tokenizer.json"])

    @staticmethod
    def languages_of_rows(first_row, n, shares):
        """Languages of rows first_row ... first_row + n - 1 of an endless sequence with the given shares.

        -> (n,) language indices

        Multiples of the golden ratio modulo one fill [0, 1) evenly: every batch has its share, not only the
        average.
        """
        place = (np.arange(first_row, first_row + n) + 1) * 0.6180339887498949 % 1.0
        return np.searchsorted(np.cumsum(shares)[:-1], place, side="right")

    def rows(self, rng, n, width, languages, split="train"):
        """Random windows of the packed streams: languages (n,) indices -> tokens (n, width) int64."""
        rows = np.empty((n, width), np.int64)
        for index, name in enumerate(self.languages):
            mine = np.flatnonzero(languages == index)
            stream = self.streams[name, split]
            if len(mine):
                self.check(width, [(name, split)])
                rows[mine] = stream[rng.integers(0, len(stream) - width, len(mine))[:, None]
                                    + np.arange(width)]
        return rows

    def check(self, width, streams=None):
        """Raises DataError if one of the streams, all by default, holds no row of that width."""
        for name, split in streams or self.streams:
            if len(self.streams[name, split]) <= width:
                raise DataError(f"{self.folder}/{name}.{split}.bin holds {len(self.streams[name, split])} "
                                f"tokens, fewer than one row of {width}: use more text or a smaller "
                                "--context_len")

    def validation_rows(self, language, n, width, split="val"):
        """The first n rows of the validation stream, end to end: always the same, (<= n, width)."""
        stream = self.streams[language, split]
        n = min(n, len(stream) // width)
        return np.asarray(stream[:n * width]).reshape(n, width).astype(np.int64)


class Corpus(Streams):
    """An opened data folder.  languages[0] is the language with most text (English)."""

    transfer = ("nli", "paraphrase")     # tasks for zero-shot transfer
    pieces = None                        # of a new language's tokens: it shares none with the others

    def __init__(self, folder, world=None):
        self.folder, self.world = Path(folder), world
        try:
            meta = json.loads((self.folder / "meta.json").read_text(encoding="utf-8"))
            self.languages, self.base_vocab, self.bytes = meta["languages"], meta["base_vocab"], meta["bytes"]
            self.vocab_size = self.base_vocab * len(self.languages)
            self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
            self.starts, self.ends = token_classes(self.tokenizer)
            self.streams = {(name, split): np.memmap(self.folder / f"{name}.{split}.bin", meta["dtype"], "r")
                            for name in self.languages for split in ("train", "val")}
            whole = meta["tokens"] == {".".join(key): len(stream) for key, stream in self.streams.items()}
        except Exception:                                   # of many kinds; the tokenizer's have no class
            whole = False
        if not whole:
            raise DataError(f"{self.folder} is damaged: delete it, and the same command builds it again")

    def add_language(self, name, n_tokens, seed):
        """A language that pretraining has not met: n_tokens of training text, and validation text.

        Made anew at each start, a million words a second; seed: another seed, other text.  Languages added to
        the same corpus tell the same stories: they differ in word order alone.  -> rows it adds
        """
        index, order = len(self.languages), language_order(name)
        self.languages, self.vocab_size = [*self.languages, name], self.vocab_size + self.base_vocab
        for stream, (split, n) in enumerate({"train": n_tokens, "val": 25_000}.items()):
            # a word is at least a token
            texts = list(self.world.documents("clone", n, 1000 + 2 * seed + stream))
            tokens = pack(texts, self.tokenizer, self.starts, self.ends, order)
            self.streams[name, split] = tokens[:n] + index * self.base_vocab
            self.bytes[f"{name}.{split}"] = (
                sum(len(text.encode("utf-8")) for text in texts) * min(n / len(tokens), 1))
        return self.base_vocab

    def encode(self, text, language=None, opening=True):
        """Text (in English words) -> token ids of a language, (n,) int64.

        opening puts the document separator first.
        """
        ids = self.tokenizer.encode(text_lines(text)).ids if text.strip() else []
        tokens = np.array([0] * opening + ids, np.int64)
        return self.translate(tokens, language or self.languages[0])

    def translate(self, tokens, language):
        """English token ids -> the same text in a language of this corpus: its word order, its rows of the
        vocabulary."""
        index = self.languages.index(language)
        order = language_order(language) if index else None
        if order is not None and len(tokens):
            tokens = permute_words(tokens, self.starts, self.ends, order)
        return tokens + index * self.base_vocab

    def decode(self, tokens):
        """Token ids -> text for people: what is not English stands as its English in ⟨brackets⟩."""
        tokens = np.asarray(tokens, np.int64)
        runs = np.split(tokens, np.flatnonzero(np.diff(tokens // self.base_vocab)) + 1) if len(tokens) else []
        texts = []
        for run in runs:
            text = self.tokenizer.decode((run % self.base_vocab).tolist()).strip(" ")
            texts.append(f"⟨{text}⟩" if text and run[0] >= self.base_vocab else text)
        return " ".join(t for t in texts if t)

    def starts_word(self, tokens):
        """True where a token starts a word, in whatever language: any shape -> the same shape, bool."""
        return self.starts[tokens % self.base_vocab]

    def sentence_ends(self):
        """Tokens that end a sentence or a document, of all languages: -> set of ids."""
        return {int(t) + i * self.base_vocab for t in np.flatnonzero(self.ends)
                for i in range(len(self.languages))}

    def opening(self, language):
        """The separator that opens a document: -> (1,) int64."""
        return self.translate(np.zeros(1, np.int64), language)

    def newline(self, language):
        return self.translate(np.array([self.tokenizer.token_to_id("Ċ")]), language)                 # (1,)

    def called(self, language):
        """The name of a language in prompts."""
        return "English" if language == self.languages[0] else language

    def items(self, task, split, n):
        """n items of a task, on its lexical rung if it has one."""
        return self.world.items(task, split, n, "lexical" if "lexical" in RUNGS[task] else None)

    def exercises(self):
        """Training items of every task and rung, for English instruction tuning."""
        return tasks.lessons(self.world, 6000, 0)

    def lessons(self, n, translations, languages):
        """What AFP learns from: n items, a share of them translations, in all languages there are."""
        return tasks.lessons(self.world, n, translations)

    def in_order(self, rows, name):
        """Text of one language with its words in the order of another, unknown, one: (n, W) -> (n, W)."""
        language = rows[0, 0] // self.base_vocab
        words, order = rows.reshape(-1) % self.base_vocab, language_order(name)
        if order is not None:
            words = permute_words(words, self.starts, self.ends, order)
        return words.reshape(rows.shape) + language * self.base_vocab

    def gold_dictionary(self, min_count=5):
        """Every English word of the training text and its twin in each other language.

        Words and numbers only: punctuation and separators are left out, as are words seen less than min_count
        times.
        """
        tokens = np.asarray(self.streams[self.languages[0], "train"][:2_000_000]).astype(np.int64)
        starts = self.starts_word(tokens)
        starts[0] = True
        word_start, word_len = split_words(tokens, starts)
        _, at, counts = np.unique(word_keys(tokens, word_start, word_len),
                                  return_index=True, return_counts=True)
        words = [tuple(tokens[word_start[i]:word_start[i] + word_len[i]].tolist())
                 for i in np.sort(at[counts >= min_count])]
        words = [w for w in words if re.fullmatch(r" [^\W_]+", self.tokenizer.decode(list(w)))]
        others = range(1, len(self.languages))
        return Dictionary([(w, [tuple(t + i * self.base_vocab for t in w) for i in others])
                           for w in words])                    # [PreAlign: gold dictionary]


def train_tokenizer(documents, vocab_size):
    """Byte-level BPE with the document separator as id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator((text_lines(d) for d in documents), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[SEPARATOR], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def read_text(path):
    """A user's English: one document per line that is not empty.

    Raises DataError naming file and line for what is not UTF-8, and for too few documents.
    """
    documents = list(documents_of(path))
    if len(documents) < LEAST:
        raise DataError(f"{path} has {len(documents)} non-empty lines: at least {LEAST} are needed, "
                        "one document per line")
    return documents


def own_stories(lines, split, index, shares):
    """The part of a user's documents that one stream tells: every twentieth is for validation, where
    languages take turns; the others are shared out.

    No two languages share a document, so nothing is parallel by accident.
    """
    if split == "val":
        return iter(lines[::20][index::len(shares)])
    train = [line for i, line in enumerate(lines) if i % 20]
    languages = Streams.languages_of_rows(0, len(train), shares)
    return iter([line for line, language in zip(train, languages) if language == index])


def chunks(documents, size=20_000):
    """Lists of up to `size` documents: what is held in memory at once."""
    documents = iter(documents)
    while chunk := list(itertools.islice(documents, size)):
        yield chunk


def build(folder, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Generate the embedded world, train the tokenizer on its training part and pack the tokens.

    Memory is bounded by two chunks of documents; the folder appears whole or not at all.

    n_words:     English words of training text; the other languages get their share of the whole beside them
    clone_share: share of the non-English text in all training text, divided evenly among the other languages
    text:        a user's own English (a file, one document per line), told in place of the world's stories
    """
    world, lines = World(seed), read_text(text) if text else None
    others = len(languages) - 1
    n_other = max(int(n_words * clone_share / (1 - clone_share) / others), 20_000)
    shares = [1 - clone_share] + others * [clone_share / others]

    def documents(index, split):
        words = 20_000 if split == "val" else n_words if index == 0 else n_other
        stories = own_stories(lines, split, index, shares) if lines else None
        role, stream = "clone" if index else "en", 2 * index + (split == "val") + 1
        return world.documents(role, words, stream, stories)

    english = chunks(documents(0, "train"))
    first = next(english)
    tokenizer = train_tokenizer(first, vocab_size)
    english = itertools.chain([first], english)             # the tokenizer's text is not generated twice
    base, (starts, ends) = tokenizer.get_vocab_size(), token_classes(tokenizer)
    dtype = "uint16" if base * len(languages) <= 65_536 else "uint32"
    meta = dict(languages=list(languages), base_vocab=base, dtype=dtype, bytes={}, tokens={})
    with whole_folder(folder) as temporary:
        for index, split in itertools.product(range(len(languages)), ("train", "val")):
            name = f"{languages[index]}.{split}"
            order = language_order(languages[index]) if index else None
            meta["bytes"][name] = meta["tokens"][name] = 0
            with named(temporary / f"{name}.bin"), open(temporary / f"{name}.bin", "wb") as file:
                for chunk in english if name == "en.train" else chunks(documents(index, split)):
                    tokens = pack(chunk, tokenizer, starts, ends, order)
                    tokens = tokens + index * base   # [PreAlign: synthetic English-Clone]
                    file.write(tokens.astype(dtype).tobytes())
                    meta["bytes"][name] += sum(len(document.encode("utf-8")) for document in chunk)
                    meta["tokens"][name] += len(tokens)
        tokenizer.save(str(temporary / "tokenizer.json"))
        (temporary / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def load(cache, seed, languages, n_words, clone_share, vocab_size, text=None):
    """Open the folder of exactly these settings; build it first if it is not there (some seconds, once)."""
    sources = [Path(__file__), Path(__file__).with_name("synthetic.py")]   # another world is another folder
    if text and os.path.isfile(text):
        sources.append(Path(text))
    folder = Path(cache) / (f"s{seed}-{'-'.join(languages)}-w{n_words}-c{clone_share:g}-v{vocab_size}"
                            f"{'-' + Path(text).stem if text else ''}-{checksum(sources)}")
    if not (folder / "meta.json").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(f"{folder}.lock", wait=True):              # the second of two processes finds it built
            if not (folder / "meta.json").exists():
                build(folder, seed, languages, n_words, clone_share, vocab_size, text)
    return Corpus(folder, World(seed))
