"""An opened prepared folder: real languages, behind the interface of the made-up ones (data/corpus.py).

  settings  what a folder decides about a run: its languages, their shares, how long to train
  Prepared  tokenizers, packed text, dictionary, sentence pairs and items
  opened    the data of a run, real or made up; `dictionaries`, its words

Languages share one vocabulary, unless the folder was prepared with --disjoint; the pieces of a new language
come after it.  Text is read where it is needed, from memory-mapped files and files of lines.
"""
import itertools
import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from data import corpus as corpora, tasks
from data.corpus import Dictionary, Streams, text_lines, token_classes
from data.folder import SPLITS, read_meta
from data.synthetic import Item
from data.text import DataError

# What prompts call a language: "Answer in German:".  Others go by their code.
NAMES = dict(ar="Arabic", bg="Bulgarian", cs="Czech", de="German", el="Greek", en="English", es="Spanish",
             et="Estonian", eu="Basque", fi="Finnish", fr="French", he="Hebrew", hi="Hindi", ht="Haitian",
             hu="Hungarian", id="Indonesian", it="Italian", ja="Japanese", ko="Korean", nl="Dutch",
             pl="Polish", pt="Portuguese", qu="Quechua", ro="Romanian", ru="Russian", sv="Swedish",
             sw="Swahili", ta="Tamil", te="Telugu", th="Thai", tr="Turkish", uk="Ukrainian", ur="Urdu",
             vi="Vietnamese", zh="Chinese")
CLASSES = ("scene", "who")           # tasks that are learned from English items, a class of several each
# What a prepared folder sets in place of a preset; explicit flags win.
# Real words have no twins, so that their alignment is never done and goes on pulling: it gets less weight.
REAL = dict(eval_items=1000, adapt_steps=300, align_weight=0.2)
MOST_STEPS = dict(tiny=4000)         # other presets: as many as they set themselves
LEAST_STEPS = 1000
TIMES = 5                            # between these limits, all text is read so often
NOT_HERE = ("text", "words", "vocab_size")   # flags that are decided when a folder is prepared


def chosen(folder, meta, languages):
    """Languages of a run from those of a folder; raises DataError for one that the folder lacks."""
    if not set(languages) <= set(meta["languages"]) or languages[0] != "en" or len(languages) < 2:
        raise DataError(f"--languages {','.join(languages)}: {folder} has {','.join(meta['languages'])}; "
                        "take en and at least one other")
    return languages


def settings(folder, knobs, given):
    """What a folder sets in place of a preset: -> {knob: value}.

    knobs: those of preset and command line;  given: of the command line alone

    Languages are the folder's; batches have English and other text in the folder's shares; steps are such
    that all text is read TIMES times, within limits; active forgetting goes on with the first new language.
    Raises DataError for a folder that was not prepared, and for a knob that it leaves no choice.
    """
    for flag in NOT_HERE:
        if flag in given:
            raise DataError(f"--{flag} does not go with --data: text and tokenizer of {folder} are as "
                            "data/prepare.py made them")
    meta = read_meta(folder)
    languages = chosen(folder, meta, given.get("languages", ",".join(meta["languages"])).split(","))
    tokens = [meta["tokens"][f"{name}.train"] for name in languages]
    found = REAL | dict(languages=",".join(languages), vocab_size=meta["base_vocab"],
                        clone_share=round(min(max(1 - tokens[0] / sum(tokens), 0.001), 0.95), 3))
    most = MOST_STEPS.get(knobs["preset"], knobs["steps"])
    step = knobs["batch_size"] * knobs["context_len"]
    found["steps"] = min(max(round(TIMES * sum(tokens) / step), LEAST_STEPS), most)
    first = knobs["adapt_to"] if knobs["adapt_to"] in meta["new"] else (meta["new"] or ["none"])[0]
    if first != "none":
        found["adapt_tokens"] = max(meta["tokens"][f"{first}.train"], 1000)
    if "forget" in knobs["method"]:
        found["adapt_to"] = first
    return found


class Prepared(Streams):
    """A folder of data/folder.py.  languages[0] is English; vocab_size counts the rows of all languages."""

    def __init__(self, folder, languages):
        """languages: those of the run, English first.  Raises DataError, see read_meta and chosen."""
        self.meta = read_meta(folder)
        self.folder, self.languages = Path(folder), list(chosen(folder, self.meta, languages))
        self.base_vocab, self.bytes, self.pieces = self.meta["base_vocab"], self.meta["bytes"], None
        known = self.meta["languages"]
        self.offset = {name: i * self.base_vocab * self.meta["disjoint"] for i, name in enumerate(known)}
        self.vocab_size = self.base_vocab * (len(known) if self.meta["disjoint"] else 1)
        self.tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        self.tokenizers = dict.fromkeys(self.languages, self.tokenizer)
        self.starts, self.ends = (np.tile(table, self.vocab_size // self.base_vocab)
                                  for table in token_classes(self.tokenizer))                # (V,) each
        self.streams = {}
        for name in self.languages:
            self.map_streams(name)
        self.transfer = tuple(task for task in CLASSES if self.items(task, "train", 1))

    def map_streams(self, name):
        """Memory-map the streams of one language."""
        for split in SPLITS:
            empty = self.meta["tokens"][f"{name}.{split}"] == 0            # no file of no bytes can be mapped
            self.streams[name, split] = np.zeros(0, np.int64) if empty else np.memmap(
                self.folder / f"{name}.{split}.bin", self.meta["dtype"], "r")

    def add_language(self, name, n_tokens, seed):
        """A language that tokenizer and pretraining have not met, with n_tokens of its training text.

        seed: not used, the text is what it is.  -> rows it adds; `pieces` are the old tokens of each

        Raises DataError for one that the folder does not have.
        """
        if name not in self.meta["new"]:
            raise DataError(f"--adapt_to {name}: the new languages of {self.folder} are "
                            f"{', '.join(self.meta['new']) or 'none'}; prepare it with --new {name}")
        tokenizer = Tokenizer.from_file(str(self.folder / f"tokenizer.{name}.json"))
        added = map(tokenizer.id_to_token, range(self.base_vocab, tokenizer.get_vocab_size()))
        self.pieces = [[t.id for t in self.tokenizer.model.tokenize(name)] for name in added]
        self.languages, self.tokenizers[name] = [*self.languages, name], tokenizer
        self.tokenizer, self.vocab_size = tokenizer, tokenizer.get_vocab_size()
        self.starts, self.ends = token_classes(tokenizer)
        self.offset[name] = 0
        self.map_streams(name)
        self.streams[name, "train"] = self.streams[name, "train"][:n_tokens]
        return self.vocab_size - self.base_vocab

    # --- text -----------------------------------------------------------------------------------------------

    def encode(self, text, language=None, opening=True):
        """Text -> token ids by the tokenizer of a language, (n,) int64; opening puts the separator first."""
        language = language or self.languages[0]
        ids = self.tokenizers[language].encode(text_lines(text)).ids if text.strip() else []
        return np.array([0] * opening + ids, np.int64) + self.offset[language]

    def word(self, text, language):
        """A word as it stands inside of a sentence: -> tuple of token ids."""
        text = f" {text}" if self.meta["spaces"][language] else text
        return tuple(i + self.offset[language] for i in self.tokenizers[language].encode(text).ids)

    def decode(self, tokens):
        """Token ids -> text for people."""
        if self.meta["disjoint"]:
            tokens = np.asarray(tokens, np.int64) % self.base_vocab
        return self.tokenizer.decode(np.asarray(tokens, np.int64).tolist()).strip(" ")

    def starts_word(self, tokens):
        """True where a token starts a word, in whatever language: any shape -> the same shape, bool."""
        return self.starts[tokens]

    def sentence_ends(self):
        """Tokens that end a sentence or a document, of all languages: -> set of ids."""
        return set(np.flatnonzero(self.ends).tolist())

    def opening(self, language):
        """The separator that opens a document: -> (1,) int64."""
        return np.array([self.offset[language]])

    def newline(self, language):
        return np.array([self.tokenizer.token_to_id("Ċ") + self.offset[language]])          # (1,)

    def called(self, language):
        """The name of a language in prompts."""
        return NAMES.get(language, language)

    def documents(self, language, split, n_tokens):
        """The first documents of a stream, n_tokens of them at most, as text: -> list of str."""
        tokens = np.asarray(self.streams[language, split][:n_tokens]).astype(np.int64) - self.offset[language]
        parts = np.split(tokens, np.flatnonzero(tokens == 0))
        return self.tokenizers[language].decode_batch([part.tolist() for part in parts if len(part)])

    # --- words, pairs, items --------------------------------------------------------------------------------

    def lines(self, name, n=None):
        """The first n lines of a file of lines "English TAB other": yields (English, other); none: nothing.

        Raises DataError naming the line that has no two sides.
        """
        path = self.folder / name
        if path.exists():
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(itertools.islice(file, n), 1):
                    sides = line.rstrip("\n").split("\t")
                    if len(sides) != 2 or not all(sides):
                        raise DataError(f"{path} line {number}: expected 'English<TAB>other': prepare the "
                                        "folder again")
                    yield tuple(sides)

    def gold_dictionary(self):
        """The folder's dictionaries of all languages of the run in one; None if it has none."""
        entries = {}
        for name in self.languages[1:]:
            for english, other in self.lines(f"dictionary.{name}.tsv"):
                many = entries.setdefault(self.word(english, "en"), [])
                other = self.word(other, name)
                many += [other] * (other not in many)
        return Dictionary(list(entries.items())) if len(entries) > 1 else None

    def lexicon(self, language):
        """Held-out words: -> {English: [translation, ...]}."""
        found = {}
        for english, other in self.lines(f"lexicon.{language}.tsv"):
            found.setdefault(english, []).append(other)
        return found

    def parallel(self, languages, split, n):
        """n sentences in English and those of the languages that translate them: -> list of {language: text}.

        The languages take turns; one English sentence with several translations is one entry.
        """
        rows = itertools.zip_longest(*(self.lines(f"pairs.{name}.{split}.tsv", n) for name in languages))
        found = {}
        for name, pair in ((name, pair) for row in rows for name, pair in zip(languages, row) if pair):
            found.setdefault(pair[0], dict(en=pair[0])).setdefault(name, pair[1])
        return list(found.values())[:n]

    def items(self, task, split, n, language="en"):
        """At most n items of a task (or of `translate`, made of pairs) that can be asked in a language.

        Raises DataError naming the line that is no item.
        """
        if task == "translate":
            texts = self.parallel(self.languages[1:] if language == "en" else [language], split, n)
            return [translation(text) for text in texts]
        path, found = self.folder / "tasks" / f"{task}.{split}.jsonl", []
        if path.exists():
            with open(path, encoding="utf-8") as file:
                for number, line in enumerate(file, 1):
                    if len(found) == n:
                        break
                    try:
                        row = json.loads(line)
                        item = Item(task, "", row["prompt"], row["candidates"], row["answer"])
                    except (ValueError, KeyError, TypeError):
                        raise DataError(f"{path} line {number} is no item: prepare the folder "
                                        "again") from None
                    # same: English asks about candidates of another language
                    if language in item.candidates if task == "same" else tasks.speaks(item, language):
                        found.append(item)
        return found

    def task_names(self):
        """Names of the tasks that have test items."""
        end = ".test.jsonl"
        return sorted(path.name.removesuffix(end) for path in self.folder.glob(f"tasks/*{end}"))

    def exercises(self):
        """English training items of all tasks.  Raises DataError if there is none."""
        found = [item for task in self.transfer for item in self.items(task, "train", 6000)]
        if not found:
            raise DataError(f"--instruct_steps: {self.folder} has no English items to learn (scene or who)")
        return found

    def lessons(self, n, translations, languages):
        """What AFP learns from: n sentences with their translations into some of the languages, a share of
        them to translate and the rest to go on with after their first half.

        Items of the tasks are not among them: these measure transfer.  Raises DataError if there is no pair.
        """
        texts = self.parallel(languages, "train", n)
        if len(texts) < 2:
            raise DataError(f"--method align: {self.folder} has no sentence pairs of {', '.join(languages)}: "
                            "prepare it with --pairs")
        translate = np.diff(np.floor(np.arange(len(texts) + 1) * translations)) > 0          # (n,) evenly
        return [translation(text) if t else self.going_on(text) for text, t in zip(texts, translate)]

    def going_on(self, text):
        """{language: sentence} -> an item: the first half of each, and the second."""
        halves = {}
        for name, sentence in text.items():
            between = " " if self.meta["spaces"][name] else ""
            units = sentence.split(" ") if between else list(sentence)
            k = (len(units) + 1) // 2
            halves[name] = between.join(units[:k]), between.join(units[k:])
        if not all(second for _, second in halves.values()):                     # a single word
            return translation(text)
        return Item(tasks.GO_ON, "", {name: first for name, (first, _) in halves.items()},
                    {name: [second] for name, (_, second) in halves.items()}, 0)


def translation(text):
    """{language: sentence} -> an item of `translate`."""
    return Item("translate", "", text, {name: [sentence] for name, sentence in text.items()}, 0)


def opened(cfg, cache):
    """The data of a run: a prepared folder, or the embedded world below `cache`."""
    languages = cfg.languages.split(",")
    if cfg.data:
        return Prepared(cfg.data, languages)
    return corpora.load(cache, cfg.seed, languages, cfg.words, cfg.clone_share, cfg.vocab_size, cfg.text)


def dictionaries(corpus, cfg):
    """-> words listed, words left out (or None), what PreAlign is taught; three None without a dictionary.

    Raises DataError if the method needs one that is not there.
    """
    found = corpus.gold_dictionary()
    if found is None:
        if "prealign" in cfg.methods or cfg.aligns_sentences and cfg.word_weight:
            late = f" --word_weight {cfg.word_weight}" * bool(cfg.word_weight)
            raise DataError(f"--method {cfg.method}{late}: {corpus.folder} has no dictionary; prepare it with "
                            "--dictionary or --pairs")
        return None, None, None
    listed, unseen = found.split(cfg.dictionary_coverage, cfg.seed)
    return listed, unseen, listed.shuffled(cfg.seed) if cfg.dictionary == "shuffled" else listed
