"""What a model reads: packed tokens, batches, the dictionary and the task items of one folder.

The built-in world and real languages have the same folder (data/folder.py) and are read by the same Corpus.
A batch is a pure function of its random generator: the step number is the whole state of the loader.
"""
import itertools
import json
import zlib
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data.files import refuse
from data.folder import SPLITS, permute_words, read_meta, text_lines, token_classes
from data.tasks import CONTINUATION, Item, pad

TRANSFER = ("nli", "paraphrase", "scene", "who")   # tasks for zero-shot transfer, where a folder has them
GOLDEN_RATIO = 0.6180339887498949


class Dictionary:
    """Words with one or more translations each, every word a tuple of token ids.

    entries: list of (word, [translation, ...]);  table: the same as {word: [translation, ...]}
    """

    def __init__(self, entries):
        self.entries, self.table = entries, dict(entries)
        assert len(self.table) == len(entries) > 0             # no word has two entries

    def __len__(self):
        return len(self.entries)

    def split(self, coverage, seed):
        """A random share of the entries, and the held-out rest: -> Dictionary, Dictionary or None.

        An entry is neither if one of its translations also belongs to a word that is kept.
        """
        order = np.random.default_rng((seed, 101)).permutation(len(self))
        n = max(2, round(coverage * len(self)))
        kept, rest = ([self.entries[i] for i in sorted(part)] for part in (order[:n], order[n:]))
        known = {translation for _, translations in kept for translation in translations}
        rest = [entry for entry in rest if not known.intersection(entry[1])]
        return Dictionary(kept), Dictionary(rest) if len(rest) > 1 else None

    def shuffled(self, seed):
        """The control: the same words and translations, all paired wrongly."""
        order = np.random.default_rng((seed, 102)).permutation(len(self))
        wrong = dict(zip(order, np.roll(order, 1)))
        return Dictionary([(word, self.entries[wrong[i]][1]) for i, (word, _) in enumerate(self.entries)])

    def batch(self, indices):
        """Words of entries, then all translations: -> tokens, mask (N, M), indices of the entries (N,)."""
        words = [self.entries[i][0] for i in indices]
        translations = [t for i in indices for t in self.entries[i][1]]
        counts = [len(self.entries[i][1]) for i in indices]
        concept = np.concatenate((indices, np.repeat(indices, counts)))
        return *pad(words + translations), concept


def languages_of_rows(first_row, n, shares):
    """Languages of rows first_row ... first_row + n - 1 of an endless sequence: -> (n,) indices.

    Multiples of the golden ratio modulo one fill [0, 1) evenly, so that every single batch has its shares.
    """
    place = (np.arange(first_row, first_row + n) + 1) * GOLDEN_RATIO % 1.0
    return np.searchsorted(np.cumsum(shares)[:-1], place, side="right")


class Corpus:
    """An opened folder.  languages[0] is English; vocab_size counts the rows of all languages.

    streams:   {(language, split): (n,) token ids}
    starts, ends: (vocab_size,) bool each, whether a token starts a word, and ends a sentence or a document
    subwords:  after add_language, the old tokens that the text of each new token splits into; else None
    prefix:    a token before each word or sentence whose states are compared, in training and in measures;
               None: it stands alone, and n_prefix is 0 instead of 1.  See prealign.word_states
    transfer:  names of the tasks that are learned from English items and asked in every language
    """

    def __init__(self, folder, languages=None):
        """languages: those of the run, English first; by default all of the folder."""
        self.folder, self.meta = Path(folder), read_meta(folder)
        known = self.meta["languages"]
        self.languages = list(languages or known)
        refuse(not set(self.languages) <= set(known) or self.languages[0] != "en" or len(self.languages) < 2,
               f"languages {','.join(self.languages)}: {folder} has {','.join(known)}; take en and at least "
               "one other")
        self.base_vocab, self.disjoint = self.meta["base_vocab"], self.meta["disjoint"]
        self.word_order, self.subwords = self.meta["word_order"], None
        self.opening = self.meta.get("separator", 0)           # the token that opens a document
        self.prefix, self.n_prefix = (self.opening, 1) if "checkpoint" in self.meta else (None, 0)
        self.offset = {name: i * self.base_vocab if self.disjoint else 0 for i, name in enumerate(known)}
        self.vocab_size = self.base_vocab * len(known) if self.disjoint else self.base_vocab
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizers = dict.fromkeys(self.languages, self.tokenizer)
        self.streams = {}
        self._open(self.languages)
        self.test_split = "test" if ("en", "test") in self.streams else "val"
        self.transfer = tuple(task for task in TRANSFER if self.items(task, "train", 1))

    def _open(self, languages):
        """Memory-map the streams of languages, and make the tables of token classes, (vocab_size,) each."""
        for name, split in itertools.product(languages, SPLITS):
            n, stream = self.meta["tokens"].get(f"{name}.{split}"), np.zeros(0, np.int64)
            if n:                                              # an empty file cannot be mapped
                stream = np.memmap(self.folder / f"{name}.{split}.bin", self.meta["dtype"], "r", shape=n)
            if n is not None:
                self.streams[name, split] = stream
        self.space = {name: " " if has else "" for name, has in self.meta["spaces"].items()}  # between words
        self.tokenizer.encode_special_tokens = True            # a text that spells one does not contain one
        copies = self.vocab_size // self.base_vocab if self.disjoint else 1
        self.classes = token_classes(self.tokenizer, self.vocab_size // copies, self.opening)    # (V,) each
        self.starts, self.ends = (np.tile(table, copies) for table in self.classes)

    def add_language(self, name, n_tokens):
        """Add a language that pretraining has not met, with n_tokens of text: -> the number of new rows."""
        self.meta = read_meta(self.folder)          # the world writes a new language when it is needed
        known = ", ".join(self.meta["new"]) or "none"
        refuse(name not in self.meta["new"],
               f"{self.folder} has no new language {name} (it has {known}): prepare the folder with it")
        before, self.languages = self.vocab_size, [*self.languages, name]
        self.word_order = self.meta["word_order"]
        if self.disjoint:
            self.offset[name], self.tokenizers[name] = self.vocab_size, self.tokenizer
            self.vocab_size += self.base_vocab
        else:
            longer = Tokenizer.from_file(str(self.folder / f"tokenizer.{name}.json"))
            added = map(longer.id_to_token, range(self.base_vocab, self.meta["new_vocab"][name]))
            self.subwords = [[t.id for t in self.tokenizer.model.tokenize(text)] for text in added]
            self.offset[name], self.tokenizers[name], self.tokenizer = 0, longer, longer
            self.vocab_size = self.meta["new_vocab"][name]
        self._open([name])
        self.streams[name, "train"] = self.streams[name, "train"][:n_tokens]
        return self.vocab_size - before

    @property
    def digest(self):
        """Eight digits that identify all that a run reads; languages added later do not count."""
        known, new = self.meta["languages"], set(self.meta["new"])
        # baselines are shown only, and their last digits depend on the machine
        files = {name: found for name, found in self.meta["files"].items()
                 if new.isdisjoint(name.split(".")[:2]) and name != "baselines.json"}
        identity = [known, self.meta.get("seed"), self.disjoint, files]
        return f"{zlib.crc32(json.dumps(identity).encode('utf-8')):08x}"

    # --- batches --------------------------------------------------------------------------------------------

    def rows(self, rng, n, width, languages):
        """Random windows of training text: languages (n,) indices -> tokens (n, width) int64."""
        rows = np.empty((n, width), np.int64)
        for index, name in enumerate(self.languages):
            mine, stream = np.flatnonzero(languages == index), self.streams[name, "train"]
            if len(mine):
                start = rng.integers(0, len(stream) - width, len(mine))          # (n,)
                rows[mine] = stream[start[:, None] + np.arange(width)]           # (n, width)
        return rows

    def check(self, width):
        """Raise UserError if a stream holds no row of that width."""
        for (name, split), stream in self.streams.items():
            refuse(len(stream) <= width,
                   f"{self.folder}/{name}.{split}.bin holds {len(stream)} tokens, but a row needs "
                   f"{width + 1}: use more text or a smaller context_len")

    def validation_rows(self, language, n, width, split="val"):
        """The first rows of a validation stream, end to end and always the same: -> (<= n, width)."""
        stream = self.streams[language, split]
        n = min(n, len(stream) // width)
        return np.asarray(stream[:n * width]).reshape(n, width).astype(np.int64)

    # --- text and tokens ------------------------------------------------------------------------------------

    def encode(self, text, language=None, separator=True):
        """Text -> token ids in a language, (n,) int64; separator: open with the document separator.

        In a language of the world the text is English: its words are reordered and its ids shifted.
        """
        language = language or self.languages[0]
        ids = self.tokenizers[language].encode(text_lines(text)).ids if text.strip() else []
        tokens = np.array(([self.opening] if separator else []) + ids, np.int64)
        order = self.word_order.get(language)
        if order is not None and len(tokens):
            tokens = permute_words(tokens, *self.classes, order)
        return tokens + self.offset[language]

    def word(self, text, language):
        """A word as it stands inside a sentence: -> tuple of token ids."""
        ids = self.tokenizers[language].encode(self.space[language] + text).ids
        return tuple(i + self.offset[language] for i in ids)

    def decode(self, tokens):
        """Token ids -> text.  Clones of English are shown as their English in ⟨brackets⟩."""
        tokens = np.asarray(tokens, np.int64)
        if not self.word_order:
            ids = tokens % self.base_vocab if self.disjoint else tokens
            return self.tokenizer.decode(ids.tolist()).strip(" ")
        texts = []
        for run in np.split(tokens, np.flatnonzero(np.diff(tokens // self.base_vocab)) + 1):
            text = self.tokenizer.decode((run % self.base_vocab).tolist()).strip(" ")
            if text:
                texts.append(f"⟨{text}⟩" if run[0] >= self.base_vocab else text)
        return " ".join(texts)

    def newline(self, language):
        return np.array(self.tokenizer.encode("\n").ids) + self.offset[language]              # (1,)

    def documents(self, language, split, n_tokens):
        """The documents in the first n_tokens of a stream: -> list of str."""
        tokens = np.asarray(self.streams[language, split][:n_tokens]).astype(np.int64) - self.offset[language]
        parts = np.split(tokens, np.flatnonzero(tokens == self.opening))
        return self.tokenizers[language].decode_batch([part.tolist() for part in parts if len(part)])

    # --- words and sentence pairs ---------------------------------------------------------------------------

    def _lines(self, name):
        """Yield the lines of a file; nothing if there is no file."""
        path = self.folder / name
        if path.exists():
            with open(path, encoding="utf-8") as file:
                yield from file

    def _pairs(self, name):
        """Yield (English, other) of each line of a file."""
        return (tuple(line.rstrip("\n").split("\t")) for line in self._lines(name))

    def dictionary(self):
        """The dictionaries of all languages of the run in one; None if the folder has none."""
        entries = {}                                           # {word: {translation: None}}, an ordered set
        for name in self.languages[1:]:
            for english, other in self.word_pairs(name):
                entries.setdefault(self.word(english, "en"), {})[self.word(other, name)] = None
        found = [(word, list(translations)) for word, translations in entries.items()]
        return Dictionary(found) if len(found) > 1 else None

    def word_pairs(self, language):
        """Yield (English, translation) of the training dictionary of one language, as text."""
        return self._pairs(f"dictionary.{language}.tsv")

    def lexicon(self, language):
        """Words held out from training: -> {English: [translation, ...]}."""
        found = {}
        for english, other in self._pairs(f"lexicon.{language}.tsv"):
            found.setdefault(english, []).append(other)
        return found

    def pairs(self, language, split, n=None):
        """Yield the first n sentence pairs (English, translation) of one language."""
        return itertools.islice(self._pairs(f"pairs.{language}.{split}.tsv"), n)

    def parallel(self, languages, split, n):
        """n sentences in English and in the languages that translate them: -> list of {language: text}.

        The languages take turns.  One English sentence with several translations is one entry.
        """
        found = {}
        for row in itertools.zip_longest(*(self.pairs(name, split, n) for name in languages)):
            for name, pair in zip(languages, row):
                if pair:
                    found.setdefault(pair[0], dict(en=pair[0])).setdefault(name, pair[1])
        return list(found.values())[:n]

    # --- items ----------------------------------------------------------------------------------------------

    def task_names(self):
        """Names of the tasks that have test items, sorted."""
        end = ".test.jsonl"
        return sorted(path.name.removesuffix(end) for path in self.folder.glob(f"tasks/*{end}"))

    def _all_items(self, task, split):
        """Yield every item of a file."""
        for row in map(json.loads, self._lines(f"tasks/{task}.{split}.jsonl")):
            yield Item(task, row.get("difficulty", ""), row["prompt"], row["candidates"], row["answer"],
                       row.get("told", ""))

    def items(self, task, split, n, difficulty=None, language="en"):
        """The first n items of a task, of one difficulty if it is given, that are available in a language."""
        # without a file of them, items of `translate` are made from sentence pairs
        if task == "translate" and f"tasks/translate.{split}.jsonl" not in self.meta["files"]:
            languages = self.languages[1:] if language == "en" else [language]
            return [translation(texts) for texts in self.parallel(languages, split, n)]
        found = (item for item in self._all_items(task, split)
                 if difficulty in (None, item.difficulty) and item.available_in(language))
        return list(itertools.islice(found, n))

    def test_items(self, task, n, difficulty=None):
        """The first n test items in each language that has any: -> {language: [item, ...]}."""
        found = {name: self.items(task, "test", n, difficulty, name) for name in self.languages}
        return {name: items for name, items in found.items() if items}

    def difficulties(self, task):
        """The difficulties of a task in the order of its test file; [""] where items have none."""
        return list(dict.fromkeys(item.difficulty for item in self._all_items(task, "test")))

    def values(self):
        """The words that answer knowledge questions: -> set of tuples of token ids."""
        texts = {text for item in self._all_items("knowledge", "test") for text in item.candidates_in("en")}
        return {self.word(text.rstrip("."), "en") for text in texts}

    def exercises(self):
        """English training items of all tasks."""
        found = self.items("exercise", "train", 6000) or [
            item for task in self.transfer for item in self.items(task, "train", 6000)]
        refuse(not found, f"{self.folder} has no English items for instruction tuning (scene or who)")
        return found

    def training_samples(self, n, translations, languages, without=()):
        """n samples for AFP, a share of them (`translations`) sentences to translate.

        The others are exercises, but not those of the tasks in `without`.  A folder without exercises has
        sentences whose second half continues the first, because the items of its tasks measure transfer.
        """
        if "tasks/exercise.train.jsonl" in self.meta["files"]:
            known = {item.prompt for task in without for item in self.items(task, "train", 10**6)}
            exercises = (item for item in self._all_items("exercise", "train") if item.prompt not in known)
            n_translations = round(n * translations)
            found = list(itertools.islice(exercises, n - n_translations))
            found += self.items("translate", "train", n_translations)
            refuse(len(found) < n, f"{self.folder} has only {len(found)} of {n} training samples: use fewer")
            return found
        texts = self.parallel(languages, "train", n)
        refuse(len(texts) < 2, f"{self.folder} has no sentence pairs of {', '.join(languages)}: prepare the "
               "folder with pairs")
        # spread the sentences to translate evenly over the list
        translate = np.diff(np.floor(np.arange(len(texts) + 1) * translations)) > 0          # (n,)
        return [translation(text) if t else self._continuation(text) for text, t in zip(texts, translate)]

    def _continuation(self, texts):
        """{language: sentence} -> an item whose prompt is the first half and whose answer is the second."""
        prompt, candidates = {}, {}
        for name, sentence in texts.items():
            space = self.space[name]
            units = sentence.split(" ") if space else list(sentence)
            middle = (len(units) + 1) // 2
            prompt[name], candidates[name] = space.join(units[:middle]), [space.join(units[middle:])]
        if [""] in candidates.values():                        # a single word has no second half
            return translation(texts)
        return Item(CONTINUATION, "", prompt, candidates, 0)


def translation(texts):
    """{language: sentence} -> an item of `translate`."""
    return Item("translate", "", texts, {name: [sentence] for name, sentence in texts.items()}, 0)
