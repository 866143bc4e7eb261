"""Task items, and the token sequences made from them.

An item is a prompt with candidates.  The candidate that makes the whole text most likely is the model's
answer, as in the papers' in-context evaluation.  Tokens that all candidates of an item share at the start are
not scored.  So items work in any word order: in `reversed`, candidates come first, and the
prompt behind them is scored.
"""
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The task families of AFP's in-context evaluation.
FAMILIES = ("nli", "paraphrase", "cause", "ending", "coreference")
WORLD_TASKS = (*FAMILIES, "question", "summary")       # the tasks of the world's exercises
# The preset tiny learns these in English (accuracy >= 0.8 on validation items under joint training).  Only
# they can say something about transfer at that size.
WITHIN_REACH = tuple((task, "lexical") for task in ("cause", "ending", "coreference", "question"))
MOST_SHOTS = 50     # validation items per task and difficulty, kept for demonstrations

# Phrases between question and answer that request a language [AFP, official code]; EQUALS only hints at it.
ANSWER, TRANSLATE, EQUALS = "Answer in {}:", "Translate into {}:", "="
# Names of languages in these phrases; a language without a name appears as its code.
NAMES = dict(line.split("\t") for line in Path(__file__).with_name(
    "language_names.tsv").read_text(encoding="utf-8").splitlines())
CONTINUATION = "continuation"   # a task of real languages: the second half of a sentence


@dataclass(frozen=True)
class Item:
    """A multiple-choice item.  Its text is the prompt followed by a candidate."""
    task: str
    difficulty: str       # "lexical" (word meaning suffices), "contextual" (the passage decides) or ""
    prompt: object        # a text, or {language: text}; a plain text is the same in all languages
    candidates: object    # a list of texts, or {language: list}
    answer: int           # index of the right candidate
    told: str = ""        # of a fact, the language whose training text states it: "en", "clone" or "both"

    def prompt_in(self, language):
        return self.prompt[language] if isinstance(self.prompt, dict) else self.prompt

    def candidates_in(self, language):
        return self.candidates[language] if isinstance(self.candidates, dict) else self.candidates

    def available_in(self, language):
        """Whether prompt and candidates exist in a language."""
        return all(language in part for part in (self.prompt, self.candidates) if isinstance(part, dict))

    def text(self, candidate, language, sep=" "):
        """The prompt completed by one candidate.  sep: "" in a language without spaces."""
        return self.prompt_in(language) + sep + self.candidates_in(language)[candidate]

    def solved(self, language, sep=" "):
        """The prompt completed by the right candidate."""
        return self.text(self.answer, language, sep)


def pad(rows):
    """Pad rows on the right: -> tokens (B, W) int64, padded with 0; mask (B, W) bool, true on tokens."""
    lengths = np.array([len(row) for row in rows])                               # (B,)
    mask = np.arange(lengths.max()) < lengths[:, None]                           # (B, W)
    tokens = np.zeros(mask.shape, np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask


# --- multiple choice ----------------------------------------------------------------------------------------

def demonstrations(dev_items, k, index, seed):
    """k solved items for the prompt of item `index`.  They never come from the split of the item."""
    return [dev_items[i] for i in np.random.default_rng((seed, 301, index)).permutation(len(dev_items))[:k]]


def candidate_rows(corpus, item, language, demonstrations=(), answer_language=None, instruction=None):
    """The text of every candidate, and the number of tokens that all share at the start: -> [(n,) ...], int.

    answer_language: that of the candidates if it is not the prompt's, as for English labels of a classifier
    instruction:     language of the phrase "Answer in ...:" before each answer, as in AFP's training
    """
    candidates = item.candidates_in(language)
    sep = corpus.space[language]
    before = "".join(d.solved(language, sep) + "\n" for d in demonstrations)
    if instruction or answer_language:                         # encode prompt and candidates separately
        if instruction:
            start = format_prompt(corpus, item, language, language, demonstrations, instruction=instruction)
        else:
            start = corpus.encode(before + item.prompt_in(language), language)
        rows = [np.concatenate((start, corpus.encode(c, answer_language or language, separator=False)))
                for c in candidates]
    else:
        rows = [corpus.encode(before + item.text(i, language, sep), language) for i in range(len(candidates))]
    shortest = min(map(len, rows))
    same = np.all([row[:shortest] == rows[0][:shortest] for row in rows], axis=0)            # (shortest,)
    # one token at least is scored, even if a candidate is the beginning of another one
    return rows, max(shortest - 1 if same.all() else int(same.argmin()), 1)


def fit_rows(rows, shared, limit):
    """Cut the rows of candidates to at most `limit` tokens: all by the same number in front, then at the end.

    -> rows, number of tokens that they share, whether anything was cut
    """
    cut = max(max(map(len, rows)) - limit, 0) if limit else 0
    return [row[min(cut, shared - 1):][:limit] for row in rows], max(shared - cut, 1), cut > 0


def predict(corpus, items, language, log_probs, k=0, dev_items=(), seed=0, answer_language=None, limit=None,
            instruction=None, batch_size=128):
    """Choose a candidate for every item after k demonstrations, in texts of at most `limit` tokens.

    log_probs: function (B, W) int64, (B, W - 1) bool -> (B, W - 1) float32 log-probability of each next
               token, needed where the second argument is true
    returns:   (n,) choices by log-probability, (n,) by log-probability per token, and the share of prompts
               that lost demonstrations because `limit` is shorter
    """
    rows, starts, first, n_cut = [], [], [0], 0                # first: of the rows of each item
    for i, item in enumerate(items):
        examples = demonstrations(dev_items, k, i, seed) if k else ()
        candidates, start, cut = fit_rows(
            *candidate_rows(corpus, item, language, examples, answer_language, instruction), limit)
        if examples and cut:
            n_cut += 1
        rows += candidates
        starts += [start] * len(candidates)
        first.append(len(rows))
    lengths = np.array([len(row) for row in rows])
    total, length = np.zeros(len(rows)), lengths - np.array(starts)
    by_length = np.argsort(lengths, kind="stable")             # rows of one length need no padding
    for at in range(0, len(rows), batch_size):
        chosen = by_length[at:at + batch_size]
        tokens, _ = pad([rows[i] for i in chosen])                               # (B, W)
        place = np.arange(tokens.shape[1] - 1)                                   # (W - 1,)
        wanted = np.array([(place >= starts[i] - 1) & (place < len(rows[i]) - 1) for i in chosen])
        predicted = log_probs(tokens, wanted)                                    # (B, W - 1)
        for line, i in zip(predicted, chosen):
            total[i] = line[starts[i] - 1:len(rows[i]) - 1].sum()
    plain, per_token = (np.array([scores[a:b].argmax() for a, b in zip(first, first[1:])])
                        for scores in (total, total / np.maximum(length, 1)))
    return plain, per_token, n_cut / max(len(items), 1)


def score(corpus, items, language, log_probs, **options):
    """Accuracy of predict: -> dict(accuracy, per_token, n), and `cut` if prompts lost demonstrations."""
    right = np.array([item.answer for item in items])
    plain, per_token, cut = predict(corpus, items, language, log_probs, **options)
    return dict(accuracy=float((plain == right).mean()), per_token=float((per_token == right).mean()),
                n=len(items)) | (dict(cut=cut) if cut else {})


def question_and_answer(corpus, items, language, limit=None):
    """Solved items, split before the first token that tells their candidates apart: -> two lists of (n,)."""
    questions, answers = [], []
    for item in items:
        rows, start, _ = fit_rows(*candidate_rows(corpus, item, language), limit)
        questions.append(rows[item.answer][:start])
        answers.append(rows[item.answer][start:])
    return questions, answers


# --- questions and answers across languages -----------------------------------------------------------------

def format_example(corpus, item, asked, answered, form=ANSWER, instruction=None):
    """Question and phrase in the language `asked`, right answer and newline in `answered`: -> (n,), (m,) ids.

    form: ANSWER, TRANSLATE or EQUALS;  instruction: language of the phrase, by default that of the question
    """
    phrase = form.format(NAMES.get(answered, answered))
    # encoded separately, so that another word order leaves the phrase behind the question
    question = [corpus.encode(item.prompt_in(asked), asked, separator=False),
                corpus.encode(phrase, instruction or asked, separator=False)]
    answer = corpus.encode(item.candidates_in(answered)[item.answer], answered, separator=False)
    return np.concatenate(question), np.concatenate((answer, corpus.newline(answered)))


def format_prompt(corpus, item, asked, answered, demonstrations=(), form=ANSWER, instruction=None):
    """A document of solved items, one per line, and the question of the item: -> token ids (n,)."""
    parts = [corpus.encode("", asked)]                         # the document separator
    for example in demonstrations:
        parts += format_example(corpus, example, asked, answered, form, instruction)
    question, _ = format_example(corpus, item, asked, answered, form, instruction)
    return np.concatenate([*parts, question])


def target_languages(corpus, items, partner, asked, answered):
    """Replace the languages drawn for items (align.draw_languages) that are not available in their partner.

    partner, asked, answered: (n,) indices of languages -> the same, changed where necessary
    """
    available = partner.copy()
    for i, item in enumerate(items):
        if not item.available_in(corpus.languages[partner[i]]):
            available[i] = next(p for p, name in enumerate(corpus.languages) if p and item.available_in(name))
    return (available, np.where(asked == partner, available, asked),
            np.where(answered == partner, available, answered))


def parallel_sentences(corpus, items, partner, limit):
    """The sentences of n items in English, then each in its partner language (an index): the pairs of MCL.

    A sentence longer than limit loses its start.  -> tokens (2n, W), mask (2n, W) bool, see pad_after
    """
    names = [corpus.languages[0]] * len(items) + [corpus.languages[p] for p in partner]
    limit -= corpus.n_prefix
    rows = []
    for item, name in zip([*items, *items], names):
        text = item.solved(name, corpus.space[name]) if item.task == CONTINUATION else item.prompt_in(name)
        rows.append(corpus.encode(text, name, separator=False)[-limit:])
    return pad_after(corpus.prefix, rows)


def pad_after(prefix, rows):
    """Pad rows, each with a token in front of it that the mask leaves out; None: without it.  See pad."""
    if prefix is None:
        return pad(rows)
    tokens, mask = pad([[prefix, *row] for row in rows])
    mask[:, 0] = False
    return tokens, mask


def instruction_examples(corpus, items, partner, asked, answered, equals):
    """Questions and answers of n items, the samples of CIT: -> two lists of (n_i,) arrays.

    partner, asked, answered: (n,) indices of languages
    equals: (n,) bool, whether a sentence to translate has the format EQUALS or TRANSLATE.  It always changes
            between English and its partner
    """
    questions, answers = [], []
    for item, p, a, t, e in zip(items, partner, asked, answered, equals):
        form = ANSWER
        if item.task == "translate":
            form, t = (EQUALS if e else TRANSLATE), p - a                        # English is 0
        a, t = corpus.languages[a], corpus.languages[t]
        questions.append(format_prompt(corpus, item, a, t, form=form))
        answers.append(format_example(corpus, item, a, t, form)[1])
    return questions, answers
