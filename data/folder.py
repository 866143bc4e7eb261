"""One folder format for everything that a model reads: the built-in world and real languages.

  meta.json               format; languages (of pretraining, English first) and new (attached later);
                          base_vocab V; disjoint: ids of language i are shifted by i * V, so that no two
                          languages share a token; word_order {language: order} of languages that are English
                          in disguise (see permute_words); separator: the token that opens a document, by
                          default 0; checkpoint: the checksum of the tokenizer of a public checkpoint, if it
                          is taken; new_vocab {new language: rows of the vocabulary with it}; dtype of the
                          .bin files; documents, words, bytes and tokens of each "<language>.<split>", and
                          counts for the summary; spaces {language: whether spaces separate its words}; seed,
                          source and licence; files {name: [bytes, checksum]} of all the others, and its own
                          checksum: a folder that was changed later is refused
  tokenizer.json          byte-level BPE, trained on training text, or that of a public checkpoint
  tokenizer.<new>.json    the same with the subwords of one new language behind the old ones
  <language>.<split>.bin  train, val and test: the token ids of all documents, end to end
  dictionary.<language>.tsv      English TAB translation; a word with several translations takes several lines
  lexicon.<language>.tsv         the same for words that training never sees
  pairs.<language>.<split>.tsv   English TAB translation, one sentence pair per line
  tasks/<task>.<split>.jsonl     one item per line: {"id", "task", "prompt", "candidates", "answer"} and
                          perhaps "difficulty" and "told".  prompt and candidates are {language: ...}, or a
                          plain text and a plain list where all languages share them
  baselines.json          results that need no model, for real languages

A folder may lack any of the files below the streams.  data/world and data/real write it, and data/corpus.py
reads it.
"""
import json
import re
import zlib
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from data.files import UserError, read_json, replaced
from data.text import SEPARATOR, chunks, count_words

FORMAT = 4
SPLITS = ("train", "val", "test")
ENCODED = 2**20                      # characters encoded at once: a token takes some 200 bytes of memory
CAPTIONS = ("scene", "who")          # tasks with classes of different sizes, learned from English captions
# public tasks with long texts: a model is asked a fifth of the items
FRACTION = dict.fromkeys(("pawsx", "xnli", "xcopa", "xstorycloze"), 5)
READ = (".json", ".jsonl", ".tsv")   # files that are read wherever they are
SENTENCE_END = set(".?!:;\n")        # permute_words works between two of these
APOSTROPHES = ("'", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d")     # byte-level BPE splits words before them
# full stops of languages without spaces, as byte-level BPE writes them
WIDE_END = tuple(pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(mark)[0][0]
                 for mark in "。？！")


# --- reading ------------------------------------------------------------------------------------------------

def checksum(path, size=2**60):
    """The crc32 of a file, or of its first `size` bytes: -> 8 hexadecimal digits."""
    found = 0
    with open(path, "rb") as file:
        while block := file.read(min(size, 2**24)):
            found, size = zlib.crc32(block, found), size - len(block)
    return f"{found:08x}"


def seal(meta):
    """The checksum of the content of meta.json."""
    content = {key: value for key, value in meta.items() if key != "checksum"}
    return f"{zlib.crc32(json.dumps(content, sort_keys=True).encode('utf-8')):08x}"


def read_meta(folder):
    """Read meta.json of a folder and check that all files are as they were written: -> dict."""
    def check(intact, problem):
        if not intact:
            raise UserError(f"{problem}: prepare the folder again")

    folder = Path(folder)
    if not (folder / "meta.json").exists():
        raise UserError(f"{folder} is not a prepared folder (it has no meta.json): make one with "
                        "python data/prepare.py")
    meta = read_json(folder / "meta.json", "prepare the folder again")
    check(meta.get("format") == FORMAT,
          f"{folder} has format {meta.get('format')!r:.20}, this program reads format {FORMAT}")
    check(seal(meta) == meta.get("checksum"), f"{folder}/meta.json was changed after it was written")
    for name, (size, digest) in meta["files"].items():
        path = folder / name
        check(path.is_file(), f"{path} is missing")
        # the world lengthens the text of a new language before it replaces meta.json
        longer = path.stat().st_size - size
        check((longer > 0 and path.suffix == ".bin" or not longer) and checksum(path, size) == digest,
              f"{path} was changed after the folder was prepared")
    for path in folder.rglob("*"):
        check(path.suffix not in READ or path.name == "meta.json"
              or path.relative_to(folder).as_posix() in meta["files"], f"{path} is no file of this folder")
    return meta


# --- text to tokens -----------------------------------------------------------------------------------------

def text_lines(text):
    """Start every line with a space, so that its first word is the same token as inside a line."""
    return "\n".join(" " + line.strip() for line in text.strip().split("\n"))


def train_tokenizer(documents, vocab_size):
    """Train byte-level BPE with the document separator as id 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator((text_lines(d) for d in documents), trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[SEPARATOR], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def token_classes(tokenizer, n=None, separator=0):
    """Two tables over a vocabulary, (n,) bool each: the token starts a word, the token ends a sentence.

    A word starts at a leading space or at anything that is neither letter nor digit.  "don't" is one word.
    n: the number of rows, by default as many as the tokenizer needs
    """
    vocabulary = tokenizer.get_vocab()
    n = n or max(vocabulary.values()) + 1
    starts, ends = np.ones(n, bool), np.zeros(n, bool)
    for token, i in vocabulary.items():
        # byte-level BPE writes the space as Ġ and the newline as Ċ, SentencePiece writes ▁ and <0x0A>
        letters = re.sub("<0x(..)>", lambda b: chr(int(b[1], 16)), token.replace("▁", "Ġ").replace("Ċ", "\n"))
        # a symbol beyond ASCII is a byte of an accented letter: it continues the word
        starts[i] = letters[0] == "Ġ" or (letters[0].isascii() and not letters[0].isalnum()
                                          and letters.lower() not in APOSTROPHES)
        ends[i] = letters[0] in SENTENCE_END or letters.startswith(WIDE_END)
    starts[separator] = ends[separator] = True
    return starts, ends


def language_order(name):
    """The word order of a made-up language: None that of English, 0 reversed, k shuffled in windows of k."""
    found = re.fullmatch(r"clone[0-9]{0,4}|reversed|shuffled-([2-9]|[1-9][0-9]{1,3})", name)
    if not found:
        raise UserError(f"language '{name}' is unknown: take clone, clone2, clone3 ..., reversed or "
                        "shuffled-K (K >= 2)")
    if name == "reversed":
        return 0
    return int(found[1]) if found[1] else None


def permute_words(tokens, starts, ends, order):
    """Reorder the words of each sentence by a fixed rule: tokens (n,) -> (n,).

    The tokens of a word stay together, and the full stop stays last.

    starts, ends: the tables of token_classes
    order:        0 reverses the sentence; k >= 2 takes windows of k words and puts their second half first

    >>> letters, starts, ends = np.arange(1, 6), np.ones(6, bool), np.arange(6) == 5
    >>> permute_words(letters, starts, ends, 0), permute_words(letters, starts, ends, 2)
    (array([4, 3, 2, 1, 5]), array([2, 1, 4, 3, 5]))
    """
    word = np.cumsum(starts[tokens]) - 1                          # (n,) index of the word a token is in
    end = ends[tokens]
    sentence = np.cumsum(np.concatenate(([0], end[:-1])))         # (n,) the end mark closes its own sentence
    first = np.searchsorted(sentence, sentence)                   # (n,) first token of the sentence
    place = word - word[first]                                    # (n,) position of the word in its sentence
    if order == 0:
        key = -place
    else:
        key = place // order * order + (place % order + (order + 1) // 2) % order
    return tokens[np.lexsort((np.where(end, len(tokens), key), sentence))]       # a stable sort


def pack(documents, tokenizer, separator=0):
    """Token ids of documents end to end, a separator before each: -> (n,) int64."""
    encoded = tokenizer.encode_batch([text_lines(document) for document in documents])
    return np.concatenate([np.array([separator] + e.ids, np.int64) for e in encoded])


# --- writing ------------------------------------------------------------------------------------------------

def write_stream(folder, stream, documents, tokenizer, meta, index):
    """Write the tokens of "<language>.<split>": -> dict(documents, words, bytes, tokens).

    meta:  word order, spaces and so on of the language; the counts are entered in it
    index: number of the language, by which its ids are shifted if no two languages share a token
    """
    language, dtype = stream.split(".")[0], np.dtype(meta["dtype"])
    order, spaces = meta["word_order"].get(language), meta["spaces"][language]
    shift = index * meta["base_vocab"] if meta["disjoint"] else 0    # [PreAlign: synthetic English-Clone]
    classes = () if order is None else token_classes(tokenizer)
    counts = dict(documents=0, words=0, bytes=0, tokens=0)
    # another process may be reading the old file
    with replaced(folder / f"{stream}.bin") as path, open(path, "wb") as file:
        for batch in chunks(documents, ENCODED):
            tokens = pack(batch, tokenizer, meta.get("separator", 0))
            if order is not None:
                tokens = permute_words(tokens, *classes, order)
            file.write((tokens + shift).astype(dtype).tobytes())
            counts["documents"] += len(batch)
            counts["words"] += sum(count_words(document, spaces) for document in batch)
            counts["bytes"] += sum(len(document.encode("utf-8")) for document in batch)
            counts["tokens"] += len(tokens)
    for key, n in counts.items():
        meta[key][stream] = n
    return counts


def write_text(path, content):
    Path(path).write_text(content, encoding="utf-8", newline="\n")


def write_json(path, content):
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def write_meta(folder, meta):
    """Write meta.json when all other files are written: it states their sizes and checksums."""
    meta = meta | dict(files={path.relative_to(folder).as_posix(): [path.stat().st_size, checksum(path)]
                              for path in sorted(folder.rglob("*"))
                              if path.is_file() and path.name != "meta.json" and path.suffix != ".tmp"})
    with replaced(folder / "meta.json") as path:
        write_json(path, meta | dict(checksum=seal(meta)))


def write_lines(path, lines):
    """Write lines one at a time: -> the number of lines."""
    n = 0
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        for n, line in enumerate(lines, 1):
            file.write(line + "\n")
    return n


def write_items(folder, items):
    """Write (split, item) pairs to tasks/<task>.<split>.jsonl, item a dict: -> {task: {split: number}}."""
    (folder / "tasks").mkdir(exist_ok=True)
    files, counts = {}, {}
    for split, item in items:
        files.setdefault((item["task"], split), []).append(json.dumps(item, ensure_ascii=False))
    for (task, split), lines in sorted(files.items()):
        path = folder / "tasks" / f"{task}.{split}.jsonl"
        counts.setdefault(task, {})[split] = write_lines(path, lines)
    return counts
