"""Test items -> token sequences, and the accuracy of a model on them.

An item is a prompt and its candidates; the candidate that makes the whole text most likely is the model's
answer, as in the papers' in-context evaluation.  What all candidates of an item have in common at the start
is not scored, so an item works in any word order: in `reversed`, candidates come first and the prompt after
them is scored given each of them.

  choices, accuracy  k-shot multiple choice by log-probability, plain and per token
  answer_rows        the same texts as training rows with loss on the answer only (fine-tuning for ZS-CLT)
  exchange, prompt   a question in one language, the answer in another; the same after k solved ones (AFP)
  lessons, parallel, dialogues   the training samples of AFP, their two sides for MCL, their texts for CIT
"""
import numpy as np

from data.synthetic import RUNGS, TASKS

IGNORE = -100   # as in model.py: a target without loss

# Tasks asked in context; `translate` is left out (English and clone in one prompt are never seen in joint
# pretraining).
IN_CONTEXT = tuple((task, rung) for task in TASKS if task not in ("knowledge", "translate")
                   for rung in RUNGS[task])
# The families of AFP's in-context evaluation.
FAMILIES = ("nli", "paraphrase", "cause", "ending", "coreference")
# What the preset tiny can do in English (accuracy >= 0.8 on dev under joint training): only these speak of
# transfer.
HEADLINE = (("cause", "lexical"), ("ending", "lexical"), ("coreference", "lexical"), ("question", "lexical"))

# Between question and answer, what asks for a language [AFP, official code]; EQUALS only hints at it.
ANSWER, TRANSLATE, EQUALS = "Answer in {}:", "Translate into {}:", "="
GO_ON = "go on"   # a task of real languages alone: the second half of a sentence


def said(part, language):
    """A part of an item in one language: what is not {language: part} is the same in all."""
    return part[language] if isinstance(part, dict) else part


def offered(item, language):
    """The candidates of an item in one language."""
    return said(item.candidates, language)


def speaks(item, language):
    """Whether an item can be asked in a language."""
    return all(language in part for part in (item.prompt, item.candidates) if isinstance(part, dict))


def shared(corpus, items):
    """Indices of the languages that all of some items can be asked in; none without items."""
    return [i for i, name in enumerate(corpus.languages)
            if items and all(speaks(item, name) for item in items)]


def text(item, candidate, demonstrations=(), language=None):
    """The text of one candidate, after k solved items (demonstrations), one item a line."""
    solved = [f"{said(d.prompt, language)} {offered(d, language)[d.answer]}" for d in demonstrations]
    return "\n".join(solved + [f"{said(item.prompt, language)} {offered(item, language)[candidate]}"])


def choices(corpus, item, language, demonstrations=(), answer_language=None, limit=None, instruction=None):
    """Token ids of each candidate's text and the length of the start they share.

    -> list of (n,) int64 arrays, int

    answer_language: writes the candidate itself in another language than the prompt (a classifier's labels,
    say)
    limit:           longest text in tokens; a longer one loses its start, the same for all candidates
    instruction:     a language in which "Answer in ...:" stands before each answer, as in AFP's training
    """
    candidates = offered(item, language)
    texts = [text(item, i, demonstrations, language) for i in range(len(candidates))]
    if instruction:
        question = prompt(corpus, item, language, language, demonstrations, instruction=instruction)
        rows = [np.concatenate((question, corpus.encode(candidate, language, opening=False)))
                for candidate in candidates]
    elif answer_language:
        prompts = [t[:len(t) - len(c) - 1] for t, c in zip(texts, candidates)]
        rows = [np.concatenate((corpus.encode(prompt, language),
                                corpus.encode(candidate, answer_language, opening=False)))
                for prompt, candidate in zip(prompts, candidates)]
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
    """Rows of different lengths -> tokens (B, W) int64, 0 on the right; mask (B, W) bool, true on tokens."""
    lengths = np.array([len(row) for row in rows])                               # (B,)
    mask = np.arange(lengths.max()) < lengths[:, None]                           # (B, W)
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask


def guesses(corpus, items, language, log_probs, shots=0, dev_items=(), seed=0, answer_language=None,
            limit=None, instruction=None, batch_size=128):
    """Multiple choice: -> the candidate that each item gets, by score and by score per token, (n,) each, and
    the share of items that lost their first examples, because limit is shorter.

    log_probs: function (B, W) int64, (B, W - 1) bool -> (B, W - 1) float32 log-probability of each next
               token, wanted where the second is true
    """
    rows, starts, owner, cut = [], [], [], 0
    for i, item in enumerate(items):
        solved = demonstrations(dev_items, shots, i, seed) if shots else ()
        candidates, start = choices(corpus, item, language, solved, answer_language, limit, instruction)
        cut += bool(solved) and max(map(len, candidates)) == limit
        rows += candidates
        starts += [start] * len(candidates)
        owner += [i] * len(candidates)
    score, length = np.zeros(len(rows)), np.array([len(r) for r in rows]) - np.array(starts)
    by_length = np.argsort([len(r) for r in rows], kind="stable")         # rows of one length need no padding
    for at in range(0, len(rows), batch_size):
        chosen = by_length[at:at + batch_size]
        tokens, _ = pad([rows[i] for i in chosen])                               # (B, W)
        place = np.arange(tokens.shape[1] - 1)                                   # (W - 1,)
        wanted = np.array([(place >= starts[i] - 1) & (place < len(rows[i]) - 1) for i in chosen])
        predicted = log_probs(tokens, wanted)                                    # (B, W - 1)
        for line, i in zip(predicted, chosen):
            score[i] = line[starts[i] - 1:len(rows[i]) - 1].sum()
    first = np.searchsorted(owner, np.arange(len(items) + 1))                    # (n + 1,)
    plain, per_token = (np.array([scores[a:b].argmax() for a, b in zip(first, first[1:])])
                        for scores in (score, score / np.maximum(length, 1)))
    return plain, per_token, cut / max(len(items), 1)


def accuracy(corpus, items, language, log_probs, *solved, **options):
    """Multiple choice, see guesses: -> dict(accuracy, per_token, n), shares of right answers; and cut, the
    share of prompts that lost examples, if there are any."""
    right = np.array([item.answer for item in items])
    plain, per_token, cut = guesses(corpus, items, language, log_probs, *solved, **options)
    return dict(accuracy=float((plain == right).mean()), per_token=float((per_token == right).mean()),
                n=len(items)) | (dict(cut=cut) if cut else {})


def answer_rows(corpus, items, language, limit=None):
    """Solved items as training rows, with loss on the tokens that tell candidates apart.

    -> inputs (B, T), targets (B, T)
    """
    rows, starts = [], []
    for item in items:
        candidates, start = choices(corpus, item, language, limit=limit)
        rows.append(candidates[item.answer])
        starts.append(start)
    tokens, scored = pad(rows)                                                   # (B, W) each
    scored &= np.arange(tokens.shape[1]) >= np.array(starts)[:, None]
    return tokens[:, :-1], np.where(scored, tokens, IGNORE)[:, 1:]


def exchange(corpus, item, asked, answered, form=ANSWER, instruction=None):
    """Question and phrase in the language `asked`, right answer and newline in the language `answered`.

    -> token ids (n,), (m,)

    form:        ANSWER, TRANSLATE or EQUALS
    instruction: language of the phrase, None for the question's.  Languages share no token, so its words and
                 the name in it are that language's pieces of words: " cl" "one", " E" "n" "g" "l" "ish"
    The phrase is encoded by itself: in another word order, it stays behind the question.
    """
    question = [corpus.encode(part, name, opening=False) for part, name in (
        (said(item.prompt, asked), asked), (form.format(corpus.called(answered)), instruction or asked))]
    answer = corpus.encode(offered(item, answered)[item.answer], answered, opening=False)
    return np.concatenate(question), np.concatenate((answer, corpus.newline(answered)))


def prompt(corpus, item, asked, answered, solved=(), form=ANSWER, instruction=None):
    """A document of k solved items, one a line, and the item's question, as token ids (n,): see exchange."""
    lines = [part for d in solved for part in exchange(corpus, d, asked, answered, form, instruction)]
    question, _ = exchange(corpus, item, asked, answered, form, instruction)
    return np.concatenate([corpus.opening(asked), *lines, question])


def lessons(world, n, translations):
    """n items of the training split, the given share of them sentences to translate, the rest from all tasks
    and rungs in turn but `knowledge`, whose items are all tests."""
    n_translations = round(n * translations)
    each = -(-(n - n_translations) // len(IN_CONTEXT))
    kinds = [world.items(task, "train", each, rung) for task, rung in IN_CONTEXT]
    return ([item for turn in zip(*kinds) for item in turn][:n - n_translations]
            + world.items("translate", "train", n_translations))


def count_tokens(corpus, items, languages):
    """Tokens of items with their right answers, in all of some languages that they can be asked in."""
    def whole(item, name):
        return said(item.prompt, name) if item.task == "translate" else text(item, item.answer, language=name)
    return sum(len(corpus.encode(whole(item, name), name))
               for item in items for name in languages if speaks(item, name))


def sentence(item, language):
    """What MCL compares: the question; of a sentence to go on with, the whole."""
    return text(item, item.answer, language=language) if item.task == GO_ON else said(item.prompt, language)


def parallel(corpus, items, partner, limit):
    """The questions of n items in English, then each in its partner language (an index): the pairs of MCL.

    -> tokens (2n, W), mask (2n, W) bool, true on tokens that are not padding
    """
    names = [corpus.languages[p] for p in (*[0] * len(items), *partner)]
    texts = [corpus.encode(sentence(item, name), name, opening=False)[-limit:]
             for item, name in zip([*items, *items], names)]
    return pad(texts)


def partners(corpus, items, partner, asked, answered):
    """Languages drawn for n items (align.directions); an item that is not in its partner gets one it is in.

    partner, asked, answered: (n,) indices of languages -> the same, with other partners where need be
    """
    drawn, spoken = partner, partner.copy()
    for i, item in enumerate(items):
        if not speaks(item, corpus.languages[drawn[i]]):
            spoken[i] = next(p for p, name in enumerate(corpus.languages) if p and speaks(item, name))
    return spoken, np.where(asked == drawn, spoken, asked), np.where(answered == drawn, spoken, answered)


def dialogues(corpus, items, partner, asked, answered, equals):
    """Questions and answers of n items, the samples of CIT: -> two lists of (n_i,) arrays.

    partner, asked, answered (n,) are indices of languages.  A sentence to translate always changes between
    English and its partner, and stands in the format EQUALS where equals (n,) is true, else TRANSLATE.
    """
    questions, answers = [], []
    for item, p, a, t, e in zip(items, partner, asked, answered, equals):
        translate = item.task == "translate"
        form = (EQUALS if e else TRANSLATE) if translate else ANSWER
        a, t = (corpus.languages[i] for i in (a, p - a if translate else t))
        questions.append(prompt(corpus, item, a, t, form=form))
        answers.append(exchange(corpus, item, a, t, form)[1])
    return questions, answers
