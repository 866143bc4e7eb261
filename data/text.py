"""Text files as documents: plain or gzipped, one document a line, read a line at a time."""
import gzip
import itertools
import re
import unicodedata
import zlib

SEPARATOR = "<|doc|>"                # opens every document; token id 0 of each language
LEAST = 100                          # documents of a user's language
LONGEST = 2**26                      # bytes of a line: more is no line of text, and would not fit into memory
SAMPLE = 20_000_000                  # characters of a language that the tokenizer and the word counts see
HELD_OUT_OF = 200_000                # documents of a user's text, the first ones, of which some are for tests
SPACE = re.compile(r"\s+")


class DataError(ValueError):
    """Something is wrong with the user's data; the message names the place and the mend."""


def lines_of(path):
    """The lines of a text file, cleaned: yields (line number, text).

    Raises DataError naming the file and, for what is not UTF-8, the line.
    """
    opened = gzip.open if str(path).endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rb") as file:
            while line := file.readline(LONGEST):
                number += 1
                if len(line) == LONGEST:
                    raise DataError(f"{path} line {number} is longer than 64 MB: one document per line")
                try:
                    text = line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(f"{path} line {number} is not UTF-8 (byte {error.start + 1}): "
                                    "save the file as UTF-8") from None
                yield number, clean(text)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is damaged after line {number}: it is no whole .gz file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def clean(text):
    """Composed characters (NFC), no separator of ours, tabs as they are, one plain space for other space."""
    text = unicodedata.normalize("NFC", text.replace(SEPARATOR, " "))
    return "\t".join(SPACE.sub(" ", part).strip() for part in text.split("\t")).strip()


def documents_of(path):
    """The documents of a file, one on each line that is not empty: yields str."""
    return (text.replace("\t", " ") for _, text in lines_of(path) if text)


def pairs_of(first, second):
    """Sentence pairs of two aligned files; a pair with an empty side is left out: yields (str, str).

    Raises DataError if one file has more lines.
    """
    number = 0
    for one, other in itertools.zip_longest(lines_of(first), lines_of(second)):
        if not one or not other:
            raise DataError(f"{first} and {second} are of unequal length, {second if one else first} ends "
                            f"after line {number}: line i of both must be translations of each other")
        number = one[0]
        if one[1] and other[1]:
            yield one[1].replace("\t", " "), other[1].replace("\t", " ")


def split_of(text, i):
    """The split of a user's document, or of a pair by its English side, the i-th of a file, counted from 0.

    Of the first 200,000 a twentieth is for validation and as much for test, by a hash of the text, so that
    one that is there twice is in one split; all others are for training.
    """
    if i >= HELD_OUT_OF:
        return "train"
    return {0: "val", 10: "test"}.get(zlib.crc32(text.encode("utf-8")) % 20, "train")


def part_of(documents, split, without=frozenset()):
    """The documents, or pairs, of one split of a user's file, but for those that are in `without`."""
    first = documents if split == "train" else itertools.islice(documents, HELD_OUT_OF)
    for i, document in enumerate(first):
        english = document if isinstance(document, str) else document[0]
        if split_of(english, i) == split and document not in without:
            yield document


def held_out(pairs):
    """The sentences of both sides of pairs that are for validation or test: -> set of str."""
    return {side for i, pair in enumerate(itertools.islice(pairs, HELD_OUT_OF))
            if split_of(pair[0], i) != "train" for side in pair}


def chunks(documents, characters):
    """Lists of documents of about so many characters: what is held in memory at once."""
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
    """Evenly spaced documents of about that many characters at most, in bounded memory and one pass.

    Every k-th document is kept; when they are too many, every second of them goes and k doubles.
    """
    kept, size, every = [], 0, 1
    for i, document in enumerate(documents):
        if i % every:
            continue
        kept.append(document)
        size += len(document)
        while size > characters and len(kept) > 1:
            kept, every = kept[::2], every * 2
            size = sum(map(len, kept))
    return kept


def has_spaces(documents):
    """Whether a language parts its words by spaces: at least one in sixteen characters is one."""
    text = list(itertools.islice(documents, 2000))
    return sum(d.count(" ") for d in text) * 16 >= sum(map(len, text))


def count_words(document, spaces):
    """Words between spaces; of a language without them, characters."""
    return document.count(" ") + 1 if spaces else len(document) - document.count(" ")
