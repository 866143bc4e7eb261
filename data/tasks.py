"""Test items -> token sequences, and the accuracy of a model on them.

An item is a prompt and its candidates; the candidate that makes the whole text most likely is the model's
answer, as in the papers' in-context evaluation.  What all candidates of an item have in common at the start
is not scored, so an item works in any word order: in `reversed`, candidates come first and the prompt after
them is scored given each of them.

  choices, accuracy  k-shot multiple choice by log-probability, plain and per token
  answer_rows        the same texts as training rows with loss on the answer only (fine-tuning for ZS-CLT)
  exchange           a question in one language, the answer in another (AFP)
"""
import numpy as np

from data.synthetic import RUNGS, TASKS

IGNORE = -100   # as in model.py: a target without loss

# Tasks asked in context; `translate` is left out (English and clone in one prompt are never seen in joint
# pretraining).
IN_CONTEXT = tuple((task, rung) for task in TASKS if task not in ("knowledge", "translate")
                   for rung in RUNGS[task])
# What the preset tiny can do in English (accuracy >= 0.8 on dev under joint training): only these speak of
# transfer.
HEADLINE = (("cause", "lexical"), ("ending", "lexical"), ("coreference", "lexical"), ("question", "lexical"))

# Between question and answer, what asks for a language [AFP, official code]; EQUALS only hints at it.
ANSWER, TRANSLATE, EQUALS = "Answer in {}:", "Translate into {}:", "="


def text(item, candidate, demonstrations=()):
    """The text of one candidate, after k solved items (demonstrations), one item a line."""
    solved = [f"{d.prompt} {d.candidates[d.answer]}" for d in demonstrations]
    return "\n".join(solved + [f"{item.prompt} {item.candidates[candidate]}"])


def choices(corpus, item, language, demonstrations=(), answer_language=None, limit=None):
    """Token ids of each candidate's text and the length of the start they share.

    -> list of (n,) int64 arrays, int

    answer_language: writes the candidate itself in another language than the prompt (a classifier's labels,
    say)
    limit:           longest text in tokens; a longer one loses its start, the same for all candidates
    """
    texts = [text(item, i, demonstrations) for i in range(len(item.candidates))]
    if answer_language:
        prompts = [t[:len(t) - len(c) - 1] for t, c in zip(texts, item.candidates)]
        rows = [np.concatenate((corpus.encode(prompt, language),
                                corpus.encode(candidate, answer_language, opening=False)))
                for prompt, candidate in zip(prompts, item.candidates)]
    else:
        rows = [corpus.encode(t, language) for t in texts]
    shortest = min(map(len, rows))
    same = np.all([row[:shortest] == rows[0][:shortest] for row in rows], axis=0)            # (shortest,)
    start = max(int(same.argmin()) if not same.all() else shortest - 1, 1)
    cut = max(max(map(len, rows)) - limit, 0) if limit else 0
    return [row[min(cut, start - 1):][:limit] for row in rows], max(start - cut, 1)


def demonstrations(dev_items, k, index, seed):
    """k solved items of the same task and rung from dev, by a fixed seed: never the item's own split."""
    return [dev_items[i] for i in np.random.default_rng((seed, 301, index)).permutation(len(dev_items))[:k]]


def pad(rows):
    """List of (n_i,) arrays -> (B, W) int64, 0 on the right."""
    table = np.zeros((len(rows), max(map(len, rows))), np.int64)
    for line, row in zip(table, rows):
        line[:len(row)] = row
    return table


def accuracy(corpus, items, language, log_probs, shots=0, dev_items=(), seed=0, answer_language=None,
             limit=None, batch_size=128):
    """Multiple choice: -> dict(accuracy, per_token, n).

    per_token divides each score by its number of scored tokens

    log_probs: function (B, W) int64 -> (B, W - 1) float32 log-probability of each next token
    """
    rows, starts, owner = [], [], []
    for i, item in enumerate(items):
        solved = demonstrations(dev_items, shots, i, seed) if shots else ()
        candidates, start = choices(corpus, item, language, solved, answer_language, limit)
        rows += candidates
        starts += [start] * len(candidates)
        owner += [i] * len(candidates)
    score, length = np.zeros(len(rows)), np.array([len(r) for r in rows]) - np.array(starts)
    by_length = np.argsort([len(r) for r in rows], kind="stable")         # rows of one length need no padding
    for at in range(0, len(rows), batch_size):
        chosen = by_length[at:at + batch_size]
        tokens = pad([rows[i] for i in chosen])                                  # (B, W)
        predicted = log_probs(tokens)                                            # (B, W - 1)
        for line, i in zip(predicted, chosen):
            score[i] = line[starts[i] - 1:len(rows[i]) - 1].sum()
    owner, answers = np.array(owner), np.array([item.answer for item in items])

    def right(scores):
        best = [scores[owner == i].argmax() for i in range(len(items))]
        return float((np.array(best) == answers).mean())

    return dict(accuracy=right(score), per_token=right(score / np.maximum(length, 1)), n=len(items))


def answer_rows(corpus, items, language, limit=None):
    """Solved items as training rows, with loss on the tokens that tell candidates apart.

    -> inputs (B, T), targets (B, T)
    """
    rows, starts = [], []
    for item in items:
        candidates, start = choices(corpus, item, language, limit=limit)
        rows.append(candidates[item.answer])
        starts.append(start)
    tokens = pad(rows)                                                           # (B, W)
    place = np.arange(tokens.shape[1])
    scored = (place >= np.array(starts)[:, None]) & (place < np.array([len(r) for r in rows])[:, None])
    return tokens[:, :-1], np.where(scored, tokens, IGNORE)[:, 1:]


def exchange(corpus, item, asked, told, form=ANSWER):
    """Question and phrase in the language `asked`, right answer and newline in the language `told`.

    -> token ids (n,), (m,)

    form: ANSWER, TRANSLATE or EQUALS.  Languages share no token, so the phrase is written in the question's
    tokens, too, its words and the language's name in the tokenizer's pieces: " cl" "one", " E" "n" "g" ...
    The phrase is encoded by itself: in another word order, it stays behind the question.
    """
    phrase = form.format("English" if told == corpus.languages[0] else told)
    newline = np.array([corpus.tokenizer.token_to_id("Ċ")])                      # (1,)
    question = [corpus.encode(part, asked, opening=False) for part in (item.prompt, phrase)]
    answer = corpus.encode(item.candidates[item.answer], told, opening=False)
    return np.concatenate(question), np.concatenate((answer, corpus.translate(newline, told)))
