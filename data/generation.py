"""Measures of what a model writes: translations, summaries, answers in the language that was asked for.

A model is met as a function `write(prompts, max_new_tokens, stop) -> continuations`, lists of token ids,
greedy; `stop` is the set of tokens that end a continuation and are not part of it (train.py gives
model.generate).  Texts are compared up to the end of their first sentence, its full stop left out: every
reference is one sentence, and a model that rambles on afterwards is not punished for it.

  bleu, rouge_1          scores of words: a word is the tuple of its token ids, so a right word in a wrong
                         language does not count
  continuations          prompts of k solved examples and a question -> what the model writes
  translation, summary,
  answers                what goes into summary.json
"""
import math
from collections import Counter

import numpy as np

from data import tasks

SHOTS = (0, 1, 5, 10)   # solved translations in the prompt
# Tasks with one right answer, within reach of the preset tiny; an ending could be any fitting one.
ONE_ANSWER = (("coreference", "lexical"), ("question", "lexical"))


# --- scores -------------------------------------------------------------------------------------------------

def ngrams(words, n):
    """How often each n-gram occurs in a list of words: -> Counter."""
    return Counter(zip(*(words[i:] for i in range(n))))


def bleu(hypotheses, references):
    """BLEU-4 of a corpus, one reference each, 0 to 100 [Papineni et al. 2002].

        100 min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)

    c, r: words in all hypotheses and references;  p_n: share of the hypotheses' n-grams that are in their
    reference, each at most as often as there.  Smoothing: for n > 1, one is added to both counts of p_n
    [Lin & Och 2004], so a corpus without a common 4-gram is not zero at once; without a common word it is.

    hypotheses, references: lists of lists of words.  Raises ValueError if they are not equally many.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"bleu: {len(hypotheses)} hypotheses for {len(references)} references")
    logs = 0.0
    for n in (1, 2, 3, 4):
        found, total = int(n > 1), int(n > 1)
        for hypothesis, reference in zip(hypotheses, references):
            mine = ngrams(hypothesis, n)
            found, total = found + (mine & ngrams(reference, n)).total(), total + mine.total()
        if not found:
            return 0.0
        logs += math.log(found / total) / 4
    c, r = (sum(map(len, texts)) for texts in (hypotheses, references))
    return 100 * min(1.0, math.exp(1 - r / c)) * math.exp(logs)


def rouge_1(hypotheses, references):
    """ROUGE-1 F1, mean over pairs, 0 to 1 [Lin 2004]: 2 m / (c + r), m the words in common, c and r words of
    a hypothesis and its reference."""
    common = [(ngrams(h, 1) & ngrams(r, 1)).total() for h, r in zip(hypotheses, references, strict=True)]
    return float(np.mean([2 * m / max(len(h) + len(r), 1)
                          for m, h, r in zip(common, hypotheses, references)]))


def share_in(corpus, texts, language):
    """Share of all tokens of some texts that belong to a language; 0 if there is no token at all."""
    tokens = np.array([token for text in texts for token in text], np.int64)
    mine = tokens // corpus.base_vocab == corpus.languages.index(language)       # (n,)
    return float(mine.mean()) if len(mine) else 0.0


def words(corpus, tokens):
    """Token ids of a text -> its words, a tuple of token ids each."""
    tokens = np.asarray(tokens, np.int64)
    return [tuple(part.tolist()) for part in np.split(tokens, np.flatnonzero(corpus.starts_word(tokens)))
            if len(part)]


# --- what the model writes ----------------------------------------------------------------------------------

def continuations(write, corpus, items, dev_items, asked, answered, shots, seed, context_len,
                  form=tasks.ANSWER, batch_size=128):
    """Write an answer to every item after `shots` solved ones from dev.

    -> (answers, references), lists of lists of token ids; or None if a prompt with its answer would not fit
    into context_len: examples are never cut
    """
    stop, references = corpus.sentence_ends(), []
    for item in items:
        answer = tasks.exchange(corpus, item, asked, answered, form)[1].tolist()
        references.append(answer[:next(i for i, token in enumerate(answer) if token in stop)])
    solved = [tasks.demonstrations(dev_items, shots, i, seed) for i in range(len(items))]
    prompts = [tasks.prompt(corpus, item, asked, answered, some, form).tolist()
               for item, some in zip(items, solved)]
    most = max(map(len, references)) + 4                       # room to say a little too much
    if max(map(len, prompts)) + most > context_len:
        return None
    written = {}
    order = sorted(range(len(items)), key=lambda i: len(prompts[i]))       # little padding
    for at in range(0, len(order), batch_size):
        chosen = order[at:at + batch_size]
        written |= zip(chosen, write([prompts[i] for i in chosen], most, stop=stop))
    return [written[i] for i in range(len(items))], references


def directions(corpus):
    """(asked, answered) from English to each other language and back."""
    english, *others = corpus.languages
    return [pair for other in others for pair in ((english, other), (other, english))]


def splits(corpus, n, *keys):
    """n test items and 50 dev items, shared evenly by the (task, rung) of keys: -> test, dev."""
    return [[item for task, rung in keys
             for item in corpus.world.items(task, split, -(-m // len(keys)), rung)]
            for split, m in (("test", n), ("dev", 50))]


def samples(corpus, prompt, write):
    """The prompt continued in every language, as text for people.  write: lists of tokens -> what follows."""
    prompts = [corpus.encode(prompt, name).tolist() for name in corpus.languages]
    return "\n".join(f"{name}: {corpus.decode(start + end)}"
                     for name, start, end in zip(corpus.languages, prompts, write(prompts)))


# --- for summary.json ---------------------------------------------------------------------------------------

def translation(write, corpus, n_items, seed, context_len):
    """BLEU of n sentences, k-shot, by direction: -> {"en-clone": {"0": bleu, "1": ...}, ...}.

    Numbers of examples that do not fit into the context are left out.
    """
    test, dev = splits(corpus, n_items, ("translate", "contextual"))
    result = {f"{asked}-{answered}": {} for asked, answered in directions(corpus)}
    for asked, answered in directions(corpus):
        for k in SHOTS:
            found = continuations(
                write, corpus, test, dev, asked, answered, k, seed, context_len, tasks.TRANSLATE)
            if found is None:
                break
            result[f"{asked}-{answered}"][str(k)] = bleu(
                *([words(corpus, text) for text in texts] for texts in found))
    return result


def summary(write, corpus, n_items, seed, context_len):
    """ROUGE-1 of summaries of passages in another language, after one example: -> {"en-clone": ..., ...}."""
    test, dev = splits(corpus, n_items, ("summary", "contextual"))
    result = {}
    for asked, answered in directions(corpus):
        found = continuations(write, corpus, test, dev, asked, answered, 1, seed, context_len)
        if found is not None:
            result[f"{asked}-{answered}"] = rouge_1(
                *([words(corpus, text) for text in texts] for texts in found))
    return result


def answers(write, corpus, n_items, seed, context_len):
    """Questions in one language to be answered in the other, 0- and 1-shot.

    -> (share of the generated tokens that are in the requested language, share of answers that are right to
    the last token), by direction and number of examples
    """
    test, dev = splits(corpus, n_items, *ONE_ANSWER)
    shares, right = ({f"{asked}-{answered}": {} for asked, answered in directions(corpus)} for _ in range(2))
    for asked, answered in directions(corpus):
        for k in (0, 1):
            found = continuations(write, corpus, test, dev, asked, answered, k, seed, context_len)
            if found is not None:
                shares[f"{asked}-{answered}"][str(k)] = share_in(corpus, found[0], answered)
                right[f"{asked}-{answered}"][str(k)] = float(np.mean([a == r for a, r in zip(*found)]))
    return shares, right


def measured(write, corpus, n_items, seed, context_len):
    """All of these; what did not fit into the context is absent."""
    shares, right = answers(write, corpus, n_items, seed, context_len)
    result = dict(translation=translation(write, corpus, n_items, seed, context_len),
                  summary_rouge1=summary(write, corpus, n_items, seed, context_len),
                  answer_language=shares, answer_right=right)
    result = {key: {pair: found for pair, found in by_pair.items() if found != {}}
              for key, by_pair in result.items()}
    return {key: by_pair for key, by_pair in result.items() if by_pair}
