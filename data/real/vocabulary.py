"""Add the subwords of a new language to a trained tokenizer.

The tokenizers library cannot resume training.  BPE on sequences of old subwords is the same thing: each old
subword is written as one character, and a merge of two characters is a merge of two subwords.
"""
import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from data.folder import text_lines

FIRST = 0x10000                      # code point of subword 0; none of the million that follow is a space
MIN_COUNT = 5                        # a rarer subword has too few examples for its embedding
BATCH = 1000                         # documents encoded at once


def extend(tokenizer, documents, n):
    """Learn at most n more subwords from documents of one language: -> Tokenizer.

    Old ids and old merges come first and stay unchanged, so no text takes more tokens than before.
    """
    rows, alphabet = [], set()
    for start in range(0, len(documents), BATCH):
        for encoding in tokenizer.encode_batch([text_lines(d) for d in documents[start:start + BATCH]]):
            alphabet.update(encoding.ids)
            words = {}
            for word, i in zip(encoding.word_ids, encoding.ids):
                words[word] = words.get(word, "") + chr(FIRST + i)
            rows.append(" ".join(words.values()))
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    learner.train_from_iterator(rows, trainers.BpeTrainer(
        vocab_size=len(alphabet) + n, min_frequency=MIN_COUNT, show_progress=False))

    old = [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size())]
    state, vocabulary = json.loads(tokenizer.to_str()), tokenizer.get_vocab()
    for pair in json.loads(learner.to_str())["model"]["merges"]:
        subwords = ["".join(old[ord(character) - FIRST] for character in side) for side in pair]
        state["model"]["merges"].append(subwords)
        # two merges may spell the same subword: it gets one id
        vocabulary.setdefault("".join(subwords), len(vocabulary))
    state["model"]["vocab"] = vocabulary
    return Tokenizer.from_str(json.dumps(state))
