"""Read text files as documents: plain or gzipped, one document per line, one line at a time."""
import gzip
import itertools
import re
import unicodedata
import zlib
from functools import cache

from data.files import UserError

SEPARATOR = "<|doc|>"                # opens every document; token id 0 of each language
LEAST = 100                          # smallest number of documents of a user's language
LONGEST = 2**26                      # bytes of a line: a longer one is no text, and would not fit into memory
WORD = 10_000                        # characters: byte-level BPE takes time that grows with their square
SAMPLE = 20_000_000                  # characters per language that train the tokenizer and count words
HELD_OUT_OF = 200_000                # validation and test documents come from the first ones of a user's text
UNBROKEN = re.compile(rf"(?<!\w)\w{{{WORD + 1}}}|(?<![^\w\s])[^\w\s]{{{WORD + 1}}}")


@cache
def marks():
    """The vowel signs of Indic scripts and Thai: they are parts of words, and not in \\w."""
    return "".join(chr(i) for i in range(0x300, 0x1E000) if unicodedata.category(chr(i)).startswith("M"))


def lines_of(path):
    """Yield (line number, cleaned text) for every line of a text file."""
    opened = gzip.open if str(path).endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as file:
            while line := file.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise UserError(f"{path} line {number} is longer than 64 MB: one document per line")
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{path} line {number} is not UTF-8 (byte {error.start + 1}): "
                                    "save the file as UTF-8") from None
                if "\0" in text:
                    raise UserError(f"{path} line {number} has a NUL byte: save the file as text in UTF-8")
                if len(text) > WORD and UNBROKEN.search(text):
                    raise UserError(f"{path} line {number} has a word of more than {WORD:,} characters")
                yield number, clean(text)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is damaged after line {number}: it is not a complete .gz file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def clean(text):
    """Compose characters (NFC), remove our separator, turn white space into single spaces; tabs stay."""
    text = unicodedata.normalize("NFC", text.replace(SEPARATOR, " "))
    return "\t".join(" ".join(part.split()) for part in text.split("\t"))


def documents_of(path):
    """Yield the documents of a file: every line that is not empty, tabs as spaces."""
    return filter(None, (" ".join(text.split()) for _, text in lines_of(path)))


def pairs_of(first, second):
    """Yield the sentence pairs (str, str) of two aligned files; pairs with an empty side are left out."""
    lines = itertools.zip_longest(lines_of(first), lines_of(second))
    for number, (one, other) in enumerate(lines):
        if not one or not other:
            raise UserError(f"{first} and {second} differ in length, {second if one else first} ends after "
                            f"line {number}: line i of both must be translations of each other")
        pair = tuple(" ".join(text.split()) for _, text in (one, other))
        if all(pair):
            yield pair


def split_of(text, i):
    """The split of document i of a user's file (counted from 0), or of a pair by its English side.

    Of the first 200,000, a twentieth is for validation and a twentieth for test.  A hash of the text decides,
    so that copies are in one split; later copies are left out when the folder is written.
    """
    if i >= HELD_OUT_OF:
        return "train"
    return {0: "val", 10: "test"}.get(zlib.crc32(text.encode("utf-8")) % 20, "train")


def part_of(documents, split):
    """Yield the documents, or pairs, of one split of a user's file."""
    candidates = documents if split == "train" else itertools.islice(documents, HELD_OUT_OF)
    for i, document in enumerate(candidates):
        english = document if isinstance(document, str) else document[0]
        if split_of(english, i) == split:
            yield document


def chunks(documents, characters):
    """Yield lists of documents of about so many characters: the amount held in memory at once."""
    chunk, size = [], 0
    for document in documents:
        chunk.append(document)
        size += len(document)
        if size >= characters:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def sample(documents, characters=SAMPLE):
    """Evenly spaced documents of at most about that many characters, in one pass and bounded memory."""
    kept, size, every = [], 0, 1
    for i, document in enumerate(documents):
        if i % every:
            continue
        kept.append(document)
        size += len(document)
        while size > characters and len(kept) > 1:
            kept, every = kept[::2], every * 2                 # then every second one is taken
            size = sum(map(len, kept))
    return kept


def has_spaces(documents):
    """Whether a language separates words by spaces: at least one character in sixteen is a space."""
    text = list(itertools.islice(documents, 2000))
    return sum(d.count(" ") for d in text) * 16 >= sum(map(len, text))


def count_words(document, spaces):
    """The number of words between spaces, or of characters in a language without spaces."""
    return len(document.split()) if spaces else len(document) - document.count(" ")
