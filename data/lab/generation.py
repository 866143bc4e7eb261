"""Measures of generated text: translations, summaries, and answers in the language that was asked for.

Continuations are greedy.  They are compared up to the end of their first sentence, without its full stop,
because every reference is one sentence: a model that writes more loses nothing.
"""
import math
import re
from collections import Counter
from functools import partial
from itertools import product

import numpy as np
import torch

from data import tasks
from data.tasks import ANSWER, TRANSLATE
from data.text import marks
from model import generate

KS = (0, 1, 5, 10)                   # demonstrations of a translation
# Tasks with one right answer that the preset tiny learns.  An ending could be any that fits.
ONE_ANSWER = (("coreference", "lexical"), ("question", "lexical"))
ODDS = 3                             # see Identifier


# --- scores -------------------------------------------------------------------------------------------------

def ngrams(words, n):
    """How often each n-gram occurs in a list of words: -> Counter."""
    return Counter(zip(*(words[i:] for i in range(n))))


def bleu(hypotheses, references):
    """BLEU-4 of a corpus with one reference per hypothesis, 0 to 100 [Papineni et al. 2002].

        100 min(1, exp(1 - r / c)) (p_1 p_2 p_3 p_4)^(1/4)

    c and r are the numbers of words in all hypotheses and in all references.  p_n is the share of the
    hypotheses' n-grams that occur in their reference, each at most as often as there.  For n > 1 one is added
    to both counts of p_n [Lin & Och 2004], so that a corpus without a common 4-gram does not score 0.

    hypotheses, references: lists of lists of words.  Raises ValueError if their lengths differ.
    """
    logs = 0.0
    for n in (1, 2, 3, 4):
        found = total = 0 if n == 1 else 1
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            mine = ngrams(hypothesis, n)
            found += (mine & ngrams(reference, n)).total()
            total += mine.total()
        if not found:
            return 0.0
        logs += math.log(found / total) / 4
    c, r = sum(map(len, hypotheses)), sum(map(len, references))
    return 100 * min(1.0, math.exp(1 - r / c)) * math.exp(logs)


def rouge_1(hypotheses, references):
    """ROUGE-1 F1 [Lin 2004]: twice the number of common words by that of both texts, mean over pairs."""
    return float(np.mean([2 * (ngrams(mine, 1) & ngrams(right, 1)).total() / max(len(mine) + len(right), 1)
                          for mine, right in zip(hypotheses, references, strict=True)]))


def split_words(corpus, texts, language):
    """The words of generated texts, as tuples of token ids: lists of token ids -> lists of words.

    A right word in the wrong language of the world has other ids.  Without spaces, characters are words.
    """
    if not corpus.meta["spaces"][language]:
        return [list(corpus.decode(text).replace(" ", "")) for text in texts]
    result = []
    for text in texts:
        tokens = np.asarray(text, np.int64)
        parts = np.split(tokens, np.flatnonzero(corpus.starts[tokens]))
        result.append([tuple(part.tolist()) for part in parts if len(part)])
    return result


# --- the language of a text ---------------------------------------------------------------------------------

class Identifier:
    """Identifies the language of a word, in whose text it is ODDS times as frequent as in any other.

    Words of no such language, and unknown words, are not counted.
    """

    def __init__(self, corpus):
        """Counts words, or characters of languages without spaces, at the start of each training text."""
        self.corpus, self.owner, counts = corpus, {}, {}
        self.word = re.compile(rf"\w[\w{marks()}]*")
        for name in corpus.languages:
            words = self.word.findall("\n".join(corpus.documents(name, "train", 200_000)).lower())
            counts[name] = Counter(words if corpus.meta["spaces"][name] else "".join(words))
        known = set().union(*counts.values())
        totals = {name: count.total() for name, count in counts.items()}
        for unit in known:
            rates = {name: (counts[name][unit] + 0.5) / (totals[name] + 0.5 * len(known)) for name in counts}
            first, second = sorted(rates, key=rates.get, reverse=True)[:2]
            if rates[first] >= ODDS * rates[second]:
                self.owner[unit] = first

    def share(self, texts, language):
        """Share of a language among the words of texts (token ids) whose language is known; 0 if none is."""
        owner, spaces, owners = self.owner, self.corpus.meta["spaces"], []
        for word in self.word.findall("\n".join(map(self.corpus.decode, texts)).lower()):
            # an unknown word may be a row of characters of a language without spaces
            parts = [word] if word in owner else [c for c in word if not spaces.get(owner.get(c), True)]
            owners += [owner[part] for part in parts]
        return owners.count(language) / max(len(owners), 1)


def token_share(corpus, texts, language):
    """Share of the tokens of some texts that belong to one language of the world; 0 without tokens."""
    tokens = [token for text in texts for token in text]
    first = corpus.offset[language]
    return sum(first <= token < first + corpus.base_vocab for token in tokens) / max(len(tokens), 1)


# --- generated text -----------------------------------------------------------------------------------------

def continuations(model, corpus, items, dev_items, asked, answered, k, seed, form=ANSWER, batch_size=128):
    """Answer every item after k demonstrations: -> (outputs, references), lists of lists of token ids.

    None if a prompt and its answer exceed the context: demonstrations are never cut.
    """
    stop, prompts, references = set(np.flatnonzero(corpus.ends).tolist()), [], []
    for i, item in enumerate(items):
        examples = tasks.demonstrations(dev_items, k, i, seed)
        prompts.append(tasks.format_prompt(corpus, item, asked, answered, examples, form).tolist())
        answer = tasks.format_example(corpus, item, asked, answered, form)[1].tolist()
        end = next(place for place, token in enumerate(answer) if token in stop)
        references.append(answer[:end])
    longest = max(map(len, references)) + 4                    # room for a little too much
    if max(map(len, prompts)) + longest > model.config.context_len:
        return None
    outputs, order = {}, sorted(range(len(items)), key=lambda i: len(prompts[i]))            # little padding
    for at in range(0, len(order), batch_size):
        chosen = order[at:at + batch_size]
        found = generate(model, [prompts[i] for i in chosen], longest, temperature=0, stop=stop)
        outputs |= dict(zip(chosen, found))
    return [outputs[i] for i in range(len(items))], references


def every_direction(model, corpus, kinds, ks, n_items, seed, form=ANSWER):
    """Ask items of some (task, difficulty) kinds in English for another language, and the other way round.

    Yields (direction as in "en-clone", answered language, k, outputs, references).  Languages without items
    are left out, and numbers k that exceed the validation items or whose prompts exceed the context.
    """
    for other in corpus.languages[1:]:
        test, dev = [], []
        for task, difficulty in kinds:
            test += corpus.items(task, "test", math.ceil(n_items / len(kinds)), difficulty, other)
            dev += corpus.items(task, "val", math.ceil(tasks.MOST_SHOTS / len(kinds)), difficulty, other)
        for (asked, answered), k in product([("en", other), (other, "en")], ks):
            if test and k <= len(dev):
                if found := continuations(model, corpus, test, dev, asked, answered, k, seed, form):
                    yield f"{asked}-{answered}", answered, k, *found


def generated_text(model, corpus, n_items, seed):
    """All measures of generated text, by direction such as "en-clone" and number of demonstrations.

    translation:     {direction: {k: BLEU}}
    answer_language: {direction: {k: share of words (clones: tokens) in the language that was asked for}}
    answer_right:    {direction: {k: share of answers that are right to the last token}}
    summary_rouge1:  {direction: ROUGE-1} of summaries after one demonstration

    The answers are to questions where the folder has questions, else they are the translations.
    """
    result = {key: {} for key in ("translation", "answer_language", "answer_right", "summary_rouge1")}
    ask = partial(every_direction, model, corpus, n_items=n_items, seed=seed)
    translations = list(ask([("translate", None)], KS, form=TRANSLATE))
    for direction, language, k, *texts in translations:
        found = bleu(*(split_words(corpus, side, language) for side in texts))
        result["translation"].setdefault(direction, {})[str(k)] = found
    questions = ask(ONE_ANSWER, (0, 1)) if "question" in corpus.task_names() else translations
    share = partial(token_share, corpus) if corpus.word_order else Identifier(corpus).share
    for direction, language, k, outputs, references in questions:
        right = float(np.mean([output == reference for output, reference in zip(outputs, references)]))
        result["answer_right"].setdefault(direction, {})[str(k)] = right
        result["answer_language"].setdefault(direction, {})[str(k)] = share(outputs, language)
    for direction, name, _, *texts in ask([("summary", None)], [1]):
        result["summary_rouge1"][direction] = rouge_1(*(split_words(corpus, side, name) for side in texts))
    return {key: found for key, found in result.items() if found}


def translated(model, corpus, n=3):
    """A few test sentences and their translations by the model, in every direction, as text."""
    lines = []
    for other in corpus.languages[1:]:
        items = corpus.items("translate", "test", n, None, other)
        for asked, answered in (("en", other), (other, "en")) if items else ():
            found = continuations(model, corpus, items, [], asked, answered, 0, 0, TRANSLATE)
            for item, output in zip(items, found[0] if found else ()):
                lines.append(f"{asked}: {item.prompt_in(asked)}\n  {answered}: {corpus.decode(output)}")
    return "\n".join(lines)


def samples(model, corpus, prompt, seed):
    """The prompt continued in every language, as text."""
    prompts = [corpus.encode(prompt, name).tolist() for name in corpus.languages]
    generator = torch.Generator(model.embed.weight.device).manual_seed(seed)
    found = generate(model, prompts, 60, temperature=0.8, top_k=50, generator=generator)
    return "\n".join(f"{name}: {corpus.decode(start + end)}"
                     for name, start, end in zip(corpus.languages, prompts, found))
