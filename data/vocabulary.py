"""More pieces for a tokenizer that has not met a language: what it knew stays, new merges come after the old.

The library cannot go on training, but BPE on rows of old pieces is the same thing: each old piece stands as
one character, and the merges that are learned of these characters are merges of pieces.
"""
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data.corpus import text_lines

FIRST = 0x10000                      # code point of piece 0; of the million that follow, none is a space
RARE = 5                             # a new piece is at least that frequent: its row must learn something


def extend(tokenizer, documents, n):
    """A tokenizer with at most n more pieces, learned on documents of one language: -> Tokenizer.

    Old ids and old merges are unchanged and come first, so any text takes at most as many tokens as before.
    """
    old = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    alphabet = set()

    def as_characters():
        for start in range(0, len(documents), 1000):
            for e in tokenizer.encode_batch([text_lines(d) for d in documents[start:start + 1000]]):
                alphabet.update(e.ids)
                words = {}
                for word, i in zip(e.word_ids, e.ids):
                    words[word] = words.get(word, "") + chr(FIRST + i)
                yield " ".join(words.values())

    rows = list(as_characters())
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(rows, trainers.BpeTrainer(
        vocab_size=len(alphabet) + n, min_frequency=RARE, show_progress=False))
    state, vocabulary = json.loads(tokenizer.to_str()), tokenizer.get_vocab()
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        pieces = ["".join(old[ord(c) - FIRST] for c in side) for side in pair]
        state["model"]["merges"].append(pieces)
        # two ways to the same letters are one piece
        vocabulary.setdefault("".join(pieces), len(vocabulary))
    state["model"]["vocab"] = vocabulary
    return Tokenizer.from_str(json.dumps(state))
