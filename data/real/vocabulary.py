"""Take the tokenizer of a public checkpoint, and add the subwords of a new language to a tokenizer.

The tokenizers library cannot resume training.  BPE on sequences of old subwords is the same thing: each old
subword is written as one character, and a merge of two characters is a merge of two subwords.
"""
import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data.files import UserError, read_json, refuse
from data.folder import ENCODED, text_lines
from data.text import chunks

FIRST = 0x10000                      # code point of subword 0; none of the million that follow is a space
MIN_COUNT = 5                        # a rarer subword has too few examples for its embedding


def of_checkpoint(folder):
    """The tokenizer of a public checkpoint: -> Tokenizer, rows of the vocabulary, id of the separator.

    The separator is the token that begins a text (bos_token_id of config.json), or else ends one.  What the
    tokenizer does to a whole text is left out: we begin texts and lines ourselves, see text_lines.
    """
    config, state = (read_json(Path(folder) / name, "download it again")
                     for name in ("config.json", "tokenizer.json"))
    refuse(config is None or state is None,
           f"--tokenizer {folder}: the folder of a checkpoint holds config.json and tokenizer.json")
    try:
        refuse(state["model"]["type"] != "BPE", "only byte-pair encoding (BPE) is supported")
        state |= dict(post_processor=None, truncation=None, padding=None)
        normalizer, splitter = state.get("normalizer") or {}, state.get("pre_tokenizer") or {}
        kept = [part for part in normalizer.get("normalizers", [normalizer]) if part.get("type") != "Prepend"]
        state["normalizer"] = dict(type="Sequence", normalizers=kept) if any(kept) else None
        for part in splitter.get("pretokenizers", [splitter]):
            part |= dict(prepend_scheme="never") if part.get("type") == "Metaspace" else {}
        tokenizer = Tokenizer.from_str(json.dumps(state))
    except Exception as error:                                 # the library raises nothing more specific
        raise UserError(f"{folder}/tokenizer.json cannot be read ({error}): is it the right file?") from None
    tokenizer.encode_special_tokens = True                     # a text that spells one does not contain one
    ids = [config.get("bos_token_id"), config.get("eos_token_id")]
    ids = [found[0] if isinstance(found, list) and found else found for found in ids]
    separator, n = next((i for i in ids if i is not None), None), config.get("vocab_size")
    for key, number, low, high in (("vocab_size", n, tokenizer.get_vocab_size(), 2**20),
                                   ("bos_token_id", separator, 0, tokenizer.get_vocab_size() - 1)):
        refuse(type(number) is not int or not low <= number <= high,
               f"{folder}/config.json: {key} is {number!r:.40}, not between {low} and {high}")
    return tokenizer, n, separator


def extend(tokenizer, documents, n, first):
    """Learn at most n more subwords from documents of one language: -> Tokenizer, its number of rows.

    Old ids and old merges come first and stay unchanged, so no text takes more tokens than before.
    first: the id of the first new subword
    """
    rows, alphabet = [], set()
    for batch in chunks(documents, ENCODED):
        for encoding in tokenizer.encode_batch([text_lines(document) for document in batch]):
            words, n_before = {}, 0
            for word, token, i in zip(encoding.word_ids, encoding.tokens, encoding.ids):
                is_byte = token.startswith("<0x")              # decoders read only single bytes
                n_before += is_byte or token.startswith("▁")   # SentencePiece: a text has one word id
                if not is_byte:
                    alphabet.add(i)
                    words[word, n_before] = words.get((word, n_before), "") + chr(FIRST + i)
            rows.append(" ".join(words.values()))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(rows, trainers.BpeTrainer(
        vocab_size=len(alphabet) + n, min_frequency=MIN_COUNT, show_progress=False))

    state, vocabulary = json.loads(tokenizer.to_str()), tokenizer.get_vocab()
    old = {chr(FIRST + i): token for token, i in vocabulary.items()}
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        subwords = ["".join(old[character] for character in side) for side in pair]
        state["model"]["merges"].append(subwords)
        # two merges may spell the same subword: it gets one id
        if vocabulary.setdefault("".join(subwords), first) == first:
            first += 1
    state["model"]["vocab"] = vocabulary
    return Tokenizer.from_str(json.dumps(state)), first
