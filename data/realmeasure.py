"""Measures of a model of real languages, beside data/measure.py, where those of the embedded world are.

  Identifier                 the language that a text is written in, by its words
  language_model             perplexity per token and per word, bits per byte, on test text
  retrieval, geometry        of sentence pairs: translations found both ways; alignment, uniformity
  lexicon                    held-out words: the translation among the nearest words
  classify, probed           scene and who: learned from English captions, asked in every language
  same, chosen               same picture across languages; everything else that is multiple choice
  written                    translations, and the language they are written in
  everything                 all of it for summary.json, with the lines that need no model

Every number stands with the number of items n and with chance.  States of sentences are means over tokens of
the middle level, less the mean over the sentences of the same language.
"""
import json
import math
from collections import Counter
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from data import generation, measure, tasks
from data.dictionaries import WORD

AT_ONCE = 64                         # sentences or words whose states are computed together
PAIRS = 1000                         # retrieval is among so many sentences
LONG = 5                             # tasks of long texts are asked a fifth of the items
SHOTS = (0, 1, 5)                    # solved translations in the prompt
CAPTIONS = ("scene", "who", "same", "completion")


class Identifier:
    """Whose a word is: of the language in whose text it is ODDS times as frequent as in any other.

    Words of no such language, and unknown ones, say nothing.
    """

    ODDS = 3

    def __init__(self, texts, spaces):
        """texts: {language: list of documents}; spaces: {language: whether spaces part its words}."""
        count = {name: Counter(u for text in documents for u in self.units(text, spaces[name]))
                 for name, documents in texts.items()}
        total, known = {name: sum(c.values()) for name, c in count.items()}, set().union(*count.values())
        self.spaces, self.owner = all(spaces[name] for name in texts), {}
        for unit in known:
            share = {name: (c[unit] + 0.5) / (total[name] + 0.5 * len(known)) for name, c in count.items()}
            first, second = sorted(share, key=share.get, reverse=True)[:2]
            if share[first] >= self.ODDS * share[second]:
                self.owner[unit] = first

    @staticmethod
    def units(text, spaces):
        """Words in lower case; where no spaces part them, characters."""
        found = WORD.findall(text.lower())
        return found if spaces else [letter for word in found for letter in word]

    def share(self, texts, language):
        """Share of a language in the words of some texts whose language is known; 0 if there is none."""
        units = [unit for text in texts for unit in self.units(text, True)]
        if not self.spaces:                                    # an unknown word may be a row of characters
            units = [u for unit in units for u in ([unit] if unit in self.owner else unit)]
        owners = [self.owner[unit] for unit in units if unit in self.owner]
        return owners.count(language) / max(len(owners), 1)


# --- text ---------------------------------------------------------------------------------------------------

def language_model(model, corpus):
    """Perplexity per token, and per word, exp(nats / words), which other vocabularies can be compared with;
    bits per byte; of test text.  Separators are predicted, too, and count as nats but not as words."""
    result = {key: {} for key in ("perplexity", "perplexity_per_word", "bits_per_byte", "perplexity_n",
                                  "self_similarity")}
    for name in corpus.languages:
        losses = measure.losses_per_token(model, corpus, name, 150, split="test")            # (rows, T)
        tokens, words, n_bytes = (corpus.meta[key][f"{name}.test"] for key in ("tokens", "words", "bytes"))
        loss = float(losses.mean())
        result["perplexity"][name] = math.exp(loss)
        result["perplexity_per_word"][name] = math.exp(loss * tokens / words)
        result["bits_per_byte"][name] = loss * tokens / n_bytes / math.log(2)
        result["perplexity_n"][name] = losses.size
        result["self_similarity"][name] = measure.self_similarity(
            *measure.context_states(model, corpus, name, 64))
    return result


def states(model, corpus, language, sentences, level):
    """Mean states of sentences, less their mean: -> (N, D) on the CPU."""
    found = torch.cat([measure.sentence_states(model, corpus, language, sentences[i:i + AT_ONCE], level)
                       for i in range(0, len(sentences), AT_ONCE)])
    return found - found.mean(dim=0)


def sides(model, corpus, level):
    """Test pairs of each language that has any: yields (language, English states, its own), (N, D) each."""
    for name in corpus.languages[1:]:
        rows = list(corpus.lines(f"pairs.{name}.test.tsv", PAIRS))
        if len(rows) >= 2:
            yield name, *(states(model, corpus, language, [row[side] for row in rows], level)
                          for side, language in enumerate(("en", name)))


def retrieval(model, corpus, level):
    """Is the translation the nearest of all test sentences?  Both ways, by language."""
    return {name: dict(
        to_english=measure.retrieval(other, english), from_english=measure.retrieval(english, other),
        n=len(other), chance=1 / len(other)) for name, english, other in sides(model, corpus, level)}


def geometry(model, corpus, level):
    """Alignment and uniformity of the first language that has pairs."""
    for _, english, other in sides(model, corpus, level):
        return dict(alignment=measure.alignment(english, other),
                    uniformity=measure.uniformity(torch.cat((english, other))))
    return {}


# --- words --------------------------------------------------------------------------------------------------

@torch.no_grad()
def word_vectors(model, word_states, words, level):
    """Mean states of words read alone, at one level: tuples of token ids -> (N, D) on the CPU."""
    found = []
    for i in range(0, len(words), AT_ONCE):
        tokens, mask = map(torch.from_numpy, tasks.pad(words[i:i + AT_ONCE]))    # (n, M) each
        found.append(word_states(model, tokens, mask)[level].cpu())
    return torch.cat(found)


def lexicon(model, corpus, word_states, levels):
    """Held-out English words: is a translation the nearest, among the five nearest (cosine), of all words of
    the other side of dictionary and lexicon?

    levels: {key: level}; the input embedding (0) is what embeddings alone know
    -> {key: {language: {p1, p5, n, chance}}}
    """
    result = {key: {} for key in levels}
    for name in corpus.languages[1:]:
        asked = corpus.lexicon(name)
        if not asked:
            continue
        taught = (other for _, other in corpus.lines(f"dictionary.{name}.tsv"))
        candidates = sorted({*taught, *(other for many in asked.values() for other in many)})
        gold = torch.tensor([[c in many for c in candidates] for many in map(set, asked.values())])  # (E, C)
        sides = [[corpus.word(word, language) for word in side]
                 for side, language in ((asked, "en"), (candidates, name))]
        for key, level in levels.items():
            english, other = (F.normalize(word_vectors(model, word_states, side, level), dim=-1)
                              for side in sides)                                 # (E, D), (C, D)
            nearest = (english @ other.T).topk(min(5, len(candidates)), dim=1).indices       # (E, 5)
            right = gold.gather(1, nearest).float()
            result[key][name] = dict(
                p1=right[:, 0].mean().item(), p5=right.amax(dim=1).mean().item(),
                n=len(asked), chance=gold.float().mean().item())
    return {key: found for key, found in result.items() if found}


# --- items --------------------------------------------------------------------------------------------------

def recall(guesses, answers):
    """Mean over classes of the share of their items that are found (macro recall)."""
    return float(np.mean([(guesses[answers == c] == c).mean() for c in np.unique(answers)]))


def asked(corpus, task, n_items):
    """Test items by language, of those that have any: -> {language: [item, ...]}."""
    found = {name: corpus.items(task, "test", n_items, name) for name in corpus.languages}
    return {name: items for name, items in found.items() if items}


def classify(model, corpus, task, n_items):
    """Macro recall per language of a model that was fine-tuned on English items.

    Answer words stay English everywhere, as a classifier's classes would.
    """
    limit = model.shape.context_len + 1
    return {name: recall(tasks.guesses(
        corpus, items, name, partial(measure.log_probs, model), limit=limit, answer_language="en")[0],
        np.array([item.answer for item in items])) for name, items in asked(corpus, task, n_items).items()}


def probed(model, corpus, task, n_items, level):
    """The same of a linear classifier of frozen states, trained on English captions: -> {language: recall}.

    Logistic regression with a little weight decay, solved to the end: it has no seed and no rate.
    """
    train = corpus.items(task, "train", 4000)
    features = states(model, corpus, "en", [item.prompt["en"] for item in train], level)     # (N, D)
    scale, answers = features.std(), torch.tensor([item.answer for item in train])
    weight = torch.zeros(features.shape[1] + 1, int(answers.max()) + 1, requires_grad=True)  # (D + 1, C)

    def scores(features):
        return features / scale @ weight[:-1] + weight[-1]

    solver = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = F.cross_entropy(scores(features), answers) + 1e-3 * weight[:-1].pow(2).sum()
        loss.backward()
        return loss

    solver.step(closure)
    result = {}
    for name, items in asked(corpus, task, n_items).items():
        own = states(model, corpus, name, [item.prompt[name] for item in items], level)
        result[name] = recall(scores(own).argmax(dim=1).numpy(), np.array([item.answer for item in items]))
    return result


def same(model, corpus, n_items, level):
    """An English caption and two others: which is of the same picture?  The nearer one, by cosine.

    -> {language: {"0": {accuracy, n}}}
    """
    result = {}
    for name, items in asked(corpus, "same", n_items).items():
        prompts = states(model, corpus, "en", [item.prompt["en"] for item in items], level)  # (N, D)
        offered = states(model, corpus, name, [c for item in items for c in tasks.offered(item, name)], level)
        offered = offered.view(len(items), -1, offered.shape[1])                             # (N, 2, D)
        nearest = F.cosine_similarity(prompts[:, None], offered, dim=-1).argmax(dim=1)       # (N,)
        right = nearest == torch.tensor([item.answer for item in items])
        result[name] = {"0": dict(accuracy=right.float().mean().item(), n=len(items))}
    return result


def chosen(model, corpus, task, n_items):
    """Multiple choice by likelihood: -> {language: {"0": {accuracy, per_token, n}}}."""
    return {name: {"0": measure.score_in(name, model, corpus, items)}
            for name, items in asked(corpus, task, n_items).items()}


def of_tasks(model, corpus, cfg, level):
    """Every task of the folder, see the functions above."""
    result = dict(tasks={}, probe={}, transfer_n={}, chance={})
    for task in corpus.task_names():
        n = cfg.eval_items if task in CAPTIONS else -(-cfg.eval_items // LONG)
        items = asked(corpus, task, n)
        if not items:
            continue
        name, first = next((name, items[0]) for name, items in items.items())
        result["chance"][task] = 1 / len(tasks.offered(first, name))
        if task in corpus.transfer:
            result["probe"][task] = probed(model, corpus, task, n, level)
            result["transfer_n"][task] = {name: len(items) for name, items in items.items()}
        else:
            found = same(model, corpus, n, level) if task == "same" else chosen(model, corpus, task, n)
            result["tasks"][task] = {"text": found}
    return {key: found for key, found in result.items() if found}


# --- what the model writes ----------------------------------------------------------------------------------

def written(write, corpus, n_items, seed, context_len):
    """Translations of n test sentences both ways, k-shot: BLEU, the share of words in the language that was
    asked for, and of answers that are right to the last token; by direction and number of examples."""
    identifier = Identifier({name: corpus.documents(name, "train", 200_000) for name in corpus.languages},
                            corpus.meta["spaces"])
    result = dict(translation={}, answer_language={}, answer_right={})
    for name in corpus.languages[1:]:
        test, dev = (corpus.items("translate", split, n, name)
                     for split, n in (("test", n_items), ("val", 50)))
        for asked, answered in (("en", name), (name, "en")) if test else ():
            for k in SHOTS[:3 if len(dev) >= max(SHOTS) else 1]:
                found = generation.continuations(
                    write, corpus, test, dev, asked, answered, k, seed, context_len, tasks.TRANSLATE)
                if found is None:
                    break
                texts = [corpus.decode(text) for text in found[0]]
                # words; of a language without spaces, characters
                words = [[generation.words(corpus, text) if corpus.meta["spaces"][answered] else
                          list(corpus.decode(text).replace(" ", "")) for text in side] for side in found]
                numbers = dict(
                    translation=generation.bleu(*words), answer_language=identifier.share(texts, answered),
                    answer_right=float(np.mean([a == r for a, r in zip(*found)])))
                for key, number in numbers.items():
                    result[key].setdefault(f"{asked}-{answered}", {})[str(k)] = number
    return {key: found for key, found in result.items() if found}


# --- for summary.json ---------------------------------------------------------------------------------------

def without_a_model(corpus):
    """baselines.json for the languages of the run."""
    found = json.loads((corpus.folder / "baselines.json").read_text(encoding="utf-8"))
    return dict(tasks={task: {name: n for name, n in lines.items() if name in corpus.languages}
                       for task, lines in found["tasks"].items()},
                retrieval={name: n for name, n in found["retrieval"].items() if name in corpus.languages})


def everything(model, corpus, dictionary, unseen, word_states, write, cfg):
    """All measures that need neither training nor a log; arguments as in data/measure.py."""
    middle = cfg.n_layer // 2
    result = language_model(model, corpus) | geometry(model, corpus, middle)
    result |= dict(retrieval=retrieval(model, corpus, middle),
                   retrieval_embedding=retrieval(model, corpus, 0))   # what the input embedding alone knows
    if dictionary:
        result |= measure.words(model, word_states, dictionary, unseen, middle)
    result |= lexicon(model, corpus, word_states, dict(bli=0, bli_middle=middle))
    result |= of_tasks(model, corpus, cfg, middle)
    if cfg.written_items:
        result |= written(write, corpus, cfg.written_items, cfg.seed, cfg.context_len)
    for key in ("tokens_per_word", "tokens_per_word_before"):  # the latter by the tokenizer of pretraining
        result[key] = {name: n for name, n in corpus.meta[key].items() if name in corpus.languages}
    return {k: v for k, v in result.items() if v != {}} | dict(baselines=without_a_model(corpus))
