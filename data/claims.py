"""The papers' claims as differences of measured numbers, and the rule that judges them.

  CLAIMS     claims, systems compared, the number that decides, with the rule in `judge`
  verdicts   the report of a study: a row per system, systems in pairs, a row per claim
  conclude   writes it, and the numbers behind it
  headlines  the table of the README, from data/results; `python -m data.claims` prints it
"""
import json
from pathlib import Path

import numpy as np

from data.report import COLUMNS, MORE_COLUMNS, columns, spread, table, value, without_a_model
from data.studies import SYSTEMS

# Systems that are compared under many conditions, and the perplexities to compare
PAIRS = {
    "forget": ("BA", "AFA", [("new language", "perplexity.new", 2),
                             ("after 50 updates", "adapt.new.perplexity.50", 1),
                             ("English", "perplexity.en", 2)]),
    "real": ("BA", "AFA", [("Czech, perplexity per word", "perplexity_per_word.new", 0),
                           ("per token, after 50 updates", "adapt.new.perplexity.50", 0),
                           ("English, per word", "perplexity_per_word.en", 1)]),
}


def after_pretraining(base, said):
    """AFP's claims asked of another pretrained model, `base`, whose systems are called "base, system"."""
    tasks, many, written = "families_average.clone.0", "families_average.clone.5", "translation.en-clone.0"
    found = [
        ("A2", "tasks in the clone rise, 0-shot", "AFP", "", tasks, 1, 0.02),
        ("A2", "5-shot", "AFP", "", many, 1, 0.02),
        ("A2", "above the plain text beside", "AFP", "text only", tasks, 1, 0.02),
        ("A2", "above CIT alone", "AFP", "CIT only", tasks, 1, 0.02),
        ("A3", "CIT beats MIT", "CIT, 1,000 questions", "MIT, 1,000 questions", tasks, 1, 0.02),
        ("A4", "translation into the clone better than FT", "AFP", "FT", written, 1, 1.0),
        ("A5", "answers in the clone are right", "AFP", "", "answer_right.en-clone.0", 1, 0.1),
        ("ours", "facts told in English are known in the clone", "AFP", "", "knowledge.clone", 1, 0.05),
    ]
    found = [(claim, f"{said}: {words}", f"{base}, {system}", f"{base}, {other}" if other else base, *rule)
             for claim, words, system, other, *rule in found]
    return [claim for claim in found if {*claim[2:4]} <= SYSTEMS["align"].keys()]


# claim: paper's words in short, systems compared, number, sign of the claimed direction, smallest difference
# that counts.  "A - B", of systems or of numbers, is a difference of its own; "" is zero.
CLAIMS = {
    "prealign": [
        ("P1", "clone perplexity lower than joint (log ratio)",
         "prealign", "joint", "log perplexity.clone", -1, 0.05),
        ("P1", "clone perplexity lower than joint (log ratio)",
         "published", "joint", "log perplexity.clone", -1, 0.05),
        ("P1", "English perplexity not worse (log ratio)",
         "prealign", "joint", "log perplexity.en", 0, 0.02),
        ("P1", "English perplexity not worse (log ratio)",
         "published", "joint", "log perplexity.en", 0, 0.02),
        ("P2", "zero-shot transfer of nli, clone",
         "prealign", "joint", "transfer.nli.clone", 1, 0.05),
        ("P2", "zero-shot transfer of nli, clone",
         "published", "joint", "transfer.nli.clone", 1, 0.05),
        ("P3", "knowledge told in English, asked in the clone",
         "prealign", "joint", "knowledge.clone", 1, 0.05),
        ("P3", "knowledge told in English, asked in the clone",
         "published", "joint", "knowledge.clone", 1, 0.05),
        ("P4", "both parts better than one (log clone perplexity)",
         "published", "init only", "log perplexity.clone", -1, 0.0),
        ("P4", "both parts better than one (log clone perplexity)",
         "published", "switching only", "log perplexity.clone", -1, 0.0),
        ("P4", "both parts better than one (knowledge)",
         "published", "init only", "knowledge.clone", 1, 0.0),
        ("P4", "both parts better than one (knowledge)",
         "published", "switching only", "knowledge.clone", 1, 0.0),
        ("P5", "input-only switching writes less clone in English",
         "published", "vanilla", "log foreign_mass_in_english", -1, 0.0),
        ("P5", "input-only >= vanilla (log clone perplexity)",
         "published", "vanilla", "log perplexity.clone", -1, 0.0),
        ("P5", "input-only >= vanilla (knowledge)",
         "published", "vanilla", "knowledge.clone", 1, 0.0),
        ("P6", "cosine of pairs above joint (middle level)",
         "published", "joint", "word_cosine.middle", 1, 0.05),
        ("P6", "without switching the cosine decays further",
         "init only", "published", "word_cosine.middle", -1, 0.05),
        ("P7", "words left out are better aligned than under joint",
         "dictionary 75 %", "joint", "unseen_word_retrieval", 1, 0.05),
        ("P8", "a shuffled dictionary does not help (log clone perplexity)",
         "shuffled", "joint", "log perplexity.clone", 1, 0.0),
        ("P8", "a shuffled dictionary does not help (knowledge)",
         "shuffled", "joint", "knowledge.clone", -1, 0.0),
    ],
    "forget": [
        ("F1", "new language after the same adaptation (log perplexity)",
         "AFA", "BA", "log perplexity.new", -1, 0.05),
        ("F1", "the same with 3,000 tokens",
         "AFA, 3,000 tokens", "BA, 3,000 tokens", "log perplexity.new", -1, 0.05),
        ("F1", "the same without text of the old languages",
         "AFA, no replay", "BA, no replay", "log perplexity.new", -1, 0.05),
        ("F2", "faster: new language after 50 updates (log perplexity)",
         "AFA", "BA", "log adapt.new.perplexity.50", -1, 0.05),
        ("F3", "English not worse after pretraining (log perplexity)",
         "forgetting", "standard", "log perplexity.en", 0, 0.05),
        ("F3", "English not worse after adapting (log perplexity)",
         "AFA", "BA", "log perplexity.en", 0, 0.05),
        ("F3", "English not worse after adapting, without text of the old languages",
         "AFA, no replay", "BA, no replay", "log perplexity.en", 0, 0.05),
        ("F4", "self-similarity lower, English", "forgetting", "standard", "self_similarity.en", -1, 0.0),
        ("F4", "self-similarity lower, new language", "AFA", "BA", "self_similarity.new", -1, 0.0),
        ("F5", "with a million tokens the advantage is smaller (log perplexity)",
         "AFA, 1,000,000 tokens - BA, 1,000,000 tokens", "AFA - BA", "log perplexity.new", 1, 0.05),
        ("F5", "with a million tokens none is left (log perplexity)",
         "BA, 1,000,000 tokens", "AFA, 1,000,000 tokens", "log perplexity.new", 0, 0.02),
        # the fourth reset, not the last: after that the rate of the embedding has a longer warm-up
        ("F6", "a saw-tooth: training loss rises at the fourth reset (nats)",
         "forgetting", "", "recovery.3.rise", 1, 0.1),
        ("F6", "recovery gets faster: excess loss 50 steps after the fourth reset against the first (nats)",
         "forgetting", "", "recovery.3.excess - recovery.0.excess", -1, 0.1),
        ("F7", "gain grows with distance: reversed against the same order (log perplexity)",
         "AFA, reversed - BA, reversed", "AFA - BA", "log perplexity.new", -1, 0.05),
        ("F7", "gain grows with distance: shuffled-4 against the same order (log perplexity)",
         "AFA, shuffled-4 - BA, shuffled-4", "AFA - BA", "log perplexity.new", -1, 0.05),
        ("F8", "weights without moments and clock are worse, new language (log perplexity)",
         "weights only, adapted", "AFA", "log perplexity.new", 1, 0.02),
        ("F8", "weights without moments and clock are worse, English (log perplexity)",
         "weights only", "forgetting", "log perplexity.en", 1, 0.02),
        ("F9", "another language, of English words, suffers less than under BA (log perplexity)",
         "AFA", "BA", "log perplexity_in_other_order.en", -1, 0.02),
        ("tasks", "tuned in English, tasks in the new language",
         "tuned AFA", "tuned BA", "tasks_average.new", 1, 0.02),
        ("tasks", "tuned in English, knowledge in the new language",
         "tuned AFA", "tuned BA", "knowledge.new", 1, 0.02),
        ("tasks", "assembled as in Chen et al., tasks in the new language",
         "assembled AFA", "assembled BA", "tasks_average.new", 1, 0.02),
        ("ours", "resets for longer: new language (log perplexity)",
         "longer, adapted", "AFA", "log perplexity.new", -1, 0.02),
        ("ours", "resets for longer: English (log perplexity)",
         "longer", "forgetting", "log perplexity.en", -1, 0.02),
        ("ours", "gradual resets: new language (log perplexity)",
         "gradual, adapted", "AFA", "log perplexity.new", -1, 0.02),
        ("ours", "gradual resets: English (log perplexity)",
         "gradual", "forgetting", "log perplexity.en", -1, 0.02),
        ("ours", "resets do not undo alignment: knowledge in the clone",
         "prealign+forget", "prealign", "knowledge.clone", 1, 0.02),
        ("ours", "resets do not undo alignment: words found",
         "prealign+forget", "prealign", "word_retrieval", 1, 0.02),
        ("ours", "forgetting on top of prealign: new language (log perplexity)",
         "prealign+forget, adapted", "prealign, adapted", "log perplexity.new", -1, 0.05),
    ],
    "align": [
        ("A1", "MCL alone does not raise five task families in the clone, 0-shot", "MCL only", "joint",
         "families_average.clone.0", 0, 0.02),
        ("A1", "nor above the plain text beside it", "MCL only", "text only",
         "families_average.clone.0", 0, 0.02),
        ("A2", "CIT alone raises them", "CIT only", "joint", "families_average.clone.0", 1, 0.02),
        ("A2", "above the plain text beside it", "CIT only", "text only",
         "families_average.clone.0", 1, 0.02),
        ("A2", "both raise them", "AFP", "joint", "families_average.clone.0", 1, 0.02),
        ("A2", "above the plain text beside them", "AFP", "text only", "families_average.clone.0", 1, 0.02),
        ("A2", "both raise them: 5-shot", "AFP", "joint", "families_average.clone.5", 1, 0.02),
        ("A2", "both are better than CIT alone: 0-shot", "AFP", "CIT only",
         "families_average.clone.0", 1, 0.02),
        ("A2", 'both, asked as in training ("Answer in clone:"): 0-shot', "AFP", "joint",
         "instructed_average.own.clone.0", 1, 0.02),
        ("A2", "both are better than CIT alone, asked as in training: 0-shot", "AFP", "CIT only",
         "instructed_average.own.clone.0", 1, 0.02),
        ("A2", 'both, asked with "Answer in English:", above the plain text beside: 0-shot', "AFP", "text only",
         "instructed_average.en.clone.0", 1, 0.02),
        ("A2", "both, above the plain text beside: cause alone", "AFP", "text only",
         "tasks.cause.lexical.clone.0.accuracy", 1, 0.02),
        ("A2", "both, above the plain text beside: ending alone", "AFP", "text only",
         "tasks.ending.lexical.clone.0.accuracy", 1, 0.02),
        ("A2", "both, above the plain text beside: coreference alone", "AFP", "text only",
         "tasks.coreference.lexical.clone.0.accuracy", 1, 0.02),
        ("A2", "both, above the plain text beside: tasks within reach of English", "AFP", "text only",
         "tasks_average.clone", 1, 0.02),
        ("A2", "English does not suffer: 0-shot", "joint", "AFP", "families_average.en.0", 0, 0.01),
        ("A2", "English does not suffer: log perplexity", "AFP", "joint", "log perplexity.en", 0, 0.1),
        ("A3", "answers across languages beat answers in the question's, as many samples",
         "CIT, 1,000 questions", "MIT, 1,000 questions", "families_average.clone.0", 1, 0.02),
        ("A3", "the same against five times as many samples", "CIT, 1,000 questions", "MIT, 5,000 questions",
         "families_average.clone.0", 1, 0.02),
        ("A3", "all answers in the other language against none", "AFP, cross 1", "AFP, cross 0",
         "families_average.clone.0", 1, 0.02),
        ("A4", "translation into the clone better than FT on the same pairs (BLEU, 0-shot)", "AFP", "FT",
         "translation.en-clone.0", 1, 1.0),
        ("A4", "the same into English", "AFP", "FT", "translation.clone-en.0", 1, 1.0),
        ("A4", "the same into the clone, 1-shot", "AFP", "FT", "translation.en-clone.1", 1, 1.0),
        ("A4", "FT translates better than the model as pretrained (BLEU, 0-shot)", "FT", "joint",
         "translation.en-clone.0", 1, 1.0),
        ("A4", "summary in the other language (ROUGE-1)", "AFP", "joint", "summary_rouge1.en-clone", 1, 0.02),
        ("A5", "answers are in the language asked for: in the clone", "AFP", "joint",
         "answer_language.en-clone.0", 1, 0.4),
        ("A5", "in English", "AFP", "joint", "answer_language.clone-en.0", 1, 0.4),
        ("A5", "and right", "AFP", "joint", "answer_right.en-clone.0", 1, 0.1),
        ("A6", "translations of sentences are closer", "AFP", "joint", "alignment", -1, 0.1),
        ("A6", "sentences stay spread (uniformity)", "AFP", "joint", "uniformity", 0, 0.1),
        ("A6", "MCL brings them closer than CIT alone", "AFP", "CIT only", "alignment", -1, 0.1),
        ("A6", "translations are found by the states that MCL compares", "AFP", "joint",
         "mcl.clone.retrieval", 1, 0.1),
        ("A6", "and by them more often than under CIT alone", "AFP", "CIT only", "mcl.clone.retrieval", 1, 0.1),
        ("A7", "level 1 does as well as the last one", "AFP, level 4", "AFP",
         "families_average.clone.0", 0, 0.02),
        ("A7", "mean of level 2 against last token of level 1", "AFP, mean of level 2", "AFP",
         "families_average.clone.0", 1, 0.02),
        ("A7", "mean against last token, level 1", "AFP, mean of level 1", "AFP",
         "families_average.clone.0", 1, 0.02),
        ("A7", "maximum against last token, level 1", "AFP, maximum of level 1", "AFP",
         "families_average.clone.0", 1, 0.02),
        ("A7", "level 1 does as well as level 2", "AFP, level 2", "AFP", "families_average.clone.0", 0, 0.02),
        ("ours", "both directions of MCL against one, as released", "AFP", "AFP, one direction",
         "families_average.clone.0", 1, 0.02),
        ("A8", "a tenth of the samples does as well", "AFP", "AFP, 500 samples",
         "families_average.clone.0", 0, 0.02),
        ("A8", "a hundredth of the samples does as well", "AFP", "AFP, 50 samples",
         "families_average.clone.0", 0, 0.02),
        ("A9", "left out, clone2 gains, too", "five languages, AFP", "five languages",
         "families_average.clone2.0", 1, 0.02),
        ("A9", "left out, reversed gains, too", "five languages, AFP", "five languages",
         "families_average.reversed.0", 1, 0.02),
        *(("A9", f"{which}, {name}, above the plain text beside", "five languages, AFP",
           "five languages, text only", f"families_average.{name}.0", 1, 0.02)
          for which, names in (("left out", ("clone2", "reversed")), ("aligned", ("clone", "shuffled-4")))
          for name in names),
        *(claim for base, said in (("larger", "a larger model"), ("longer", "four times the text"))
          for claim in after_pretraining(base, said)),
        ("ours", "after prealign, align still helps: 0-shot", "prealign+align", "prealign",
         "families_average.clone.0", 1, 0.02),
        ("ours", "and above the plain text beside it", "prealign+align", "prealign, text only",
         "families_average.clone.0", 1, 0.02),
        ("ours", "early and late against late alone: 0-shot", "prealign+align", "AFP",
         "families_average.clone.0", 1, 0.02),
        ("ours", "early alone against late alone: 0-shot", "prealign", "AFP",
         "families_average.clone.0", 1, 0.02),
        ("ours", "early against late: knowledge told in English, asked in the clone", "prealign", "AFP",
         "knowledge.clone", 1, 0.05),
        ("ours", "after forgetting, align still helps: 0-shot", "forget+align", "forgetting",
         "families_average.clone.0", 1, 0.02),
        ("ours", "and above the plain text beside it", "forget+align", "forgetting, text only",
         "families_average.clone.0", 1, 0.02),
        ("ours", "after forgetting, align gains as much as after plain training", "AFP - joint",
         "forget+align - forgetting", "families_average.clone.0", 0, 0.02),
        ("ours", "words aligned early against the same words late: facts in the clone", "prealign",
         "words late", "knowledge.clone", 1, 0.05),
        ("ours", "the same: tasks in the clone", "prealign", "words late",
         "families_average.clone.0", 1, 0.02),
        ("ours", "words aligned late bring facts to the clone", "words late", "text only",
         "knowledge.clone", 1, 0.05),
        ("ours", "words and sentences late against sentences alone: tasks in the clone", "AFP, words late",
         "AFP", "families_average.clone.0", 1, 0.02),
    ],
    "real": [
        ("P1", "German perplexity per word lower than joint (log ratio)",
         "prealign", "joint", "log perplexity_per_word.de", -1, 0.05),
        ("P1", "English perplexity per word not worse (log ratio)",
         "prealign", "joint", "log perplexity_per_word.en", 0, 0.05),
        ("P1", "without any shared piece: German perplexity per word (log ratio)",
         "prealign, disjoint", "joint, disjoint", "log perplexity_per_word.de", -1, 0.05),
        ("P2", "scene of a German caption, learned in English",
         "prealign", "joint", "transfer.scene.de", 1, 0.15),
        ("P2", "who is in it, learned in English", "prealign", "joint", "transfer.who.de", 1, 0.05),
        ("P7", "words that the dictionary lacks", "prealign", "joint", "bli.de.p1", 1, 0.05),
        ("P7", "the same without any shared piece",
         "prealign, disjoint", "joint, disjoint", "bli.de.p1", 1, 0.05),
        ("A6", "translations are found (retrieval, middle level)",
         "prealign", "joint", "retrieval.de.to_english", 1, 0.05),
        ("A6", "the same without any shared piece",
         "prealign, disjoint", "joint, disjoint", "retrieval.de.to_english", 1, 0.05),
        ("F1", "Czech after the same adaptation, all captions (log perplexity per word)",
         "AFA", "BA", "log perplexity_per_word.new", -1, 0.05),
        ("F1", "4,000 captions", "AFA, 4,000 captions", "BA, 4,000 captions",
         "log perplexity_per_word.new", -1, 0.05),
        ("F1", "1,000 captions", "AFA, 1,000 captions", "BA, 1,000 captions",
         "log perplexity_per_word.new", -1, 0.05),
        ("F2", "faster: Czech after 50 updates (log perplexity)",
         "AFA", "BA", "log adapt.new.perplexity.50", -1, 0.05),
        ("F3", "English not worse after pretraining (log perplexity)",
         "forgetting", "joint", "log perplexity_per_word.en", 0, 0.05),
        ("A4", "translation into German better than FT on the same pairs (BLEU)",
         "AFP", "FT", "translation.en-de.0", 1, 1.0),
        ("A4", "the same into English", "AFP", "FT", "translation.de-en.0", 1, 1.0),
        ("A5", "what is asked for in German is written in German", "AFP", "joint",
         "answer_language.en-de.0", 1, 0.4),
        ("A6", "translations are found (retrieval, middle level)", "AFP", "joint",
         "retrieval.de.to_english", 1, 0.05),
        ("A6", "they are found better than after FT on the same pairs", "AFP", "FT",
         "retrieval.de.to_english", 1, 0.05),
    ],
}


# What the README's first table shows of them: study, claim in short, system, against, number, digits
HEADLINES = [
    ("prealign", "clone perplexity falls", "prealign", "joint", "perplexity.clone", 2),
    ("prealign", "the same as published, aligned once", "published", "joint", "perplexity.clone", 2),
    ("prealign", "zero-shot transfer of `nli` rises", "prealign", "joint", "transfer.nli.clone", 2),
    ("prealign", "a fact told in English is known in the clone", "prealign", "joint", "knowledge.clone", 2),
    ("prealign", "the same as published, aligned once", "published", "joint", "knowledge.clone", 2),
    ("prealign", "both parts better than switching alone", "published", "switching only",
     "knowledge.clone", 2),
    ("prealign", "input-only switching is as good as vanilla", "published", "vanilla", "knowledge.clone", 2),
    ("forget", "perplexity of a new language, 10,000 tokens", "AFA", "BA", "perplexity.new", 1),
    ("forget", "the same after 50 updates", "AFA", "BA", "adapt.new.perplexity.50", 1),
    ("forget", "the price on English is small (under 5 %)", "forgetting", "standard", "perplexity.en", 2),
    ("forget", "self-similarity of English falls", "forgetting", "standard", "self_similarity.en", 3),
    ("align", "five task families in the clone rise", "AFP", "joint", "families_average.clone.0", 2),
    ("align", "and above the plain text beside it", "AFP", "text only", "families_average.clone.0", 2),
    ("align", "the same after pretraining on four times the text", "longer, AFP", "longer, text only",
     "families_average.clone.0", 2),
    ("align", "CIT better than MIT on the same questions", "CIT, 1,000 questions", "MIT, 1,000 questions",
     "families_average.clone.0", 2),
    ("align", "answers in the language asked for", "AFP", "joint", "answer_language.en-clone.0", 2),
    ("align", "translation (BLEU) better than fine-tuning", "AFP", "FT", "translation.en-clone.0", 1),
    ("align", "words early are better for what is known than sentences late", "prealign", "AFP",
     "knowledge.clone", 2),
    ("align", "and than the same words late", "prealign", "words late", "knowledge.clone", 2),
    ("align", "aligning early and late is better for tasks than late", "prealign+align", "AFP",
     "families_average.clone.0", 2),
    ("align", "and than early, both with the same plain text", "prealign+align", "prealign, text only",
     "families_average.clone.0", 2),
    ("real", "captions: German perplexity per word falls", "prealign", "joint", "perplexity_per_word.de", 0),
    ("real", "captions: scene in German, learned in English", "prealign", "joint", "transfer.scene.de", 2),
    ("real", "captions: translations found among 1,000", "prealign", "joint", "retrieval.de.to_english", 2),
    ("real", "captions: words that the dictionary lacks", "prealign", "joint", "bli.de.p1", 2),
    ("real", "captions: Czech attached, perplexity per word", "AFA", "BA", "perplexity_per_word.new", 0),
    ("real", "captions: BLEU into German better than FT", "AFP", "FT", "translation.en-de.0", 1),
]


def judge(differences, sign, least):
    """The rule, fixed before any run: seeds are paired, d = (method - other) * sign of the claim.

    reproduced      every seed has d > 0 and the mean is at least `least`
    same direction  the mean is above one standard error, but not the above
    no difference   |mean| within one standard error or below a quarter of `least`
    opposite        the mean is below minus one standard error
    sign 0 claims "not worse": reproduced if the mean difference is below `least`, else opposite
    """
    d = np.array(differences) * (sign or 1)
    if sign == 0:
        return "reproduced" if d.mean() < least else "opposite"
    error = d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else 0.0
    if (d > 0).all() and d.mean() >= least:
        return "reproduced"
    if abs(d.mean()) <= max(error, least / 4):
        return "no difference"
    return "same direction" if d.mean() > 0 else "opposite"


def measured(summaries, system, path):
    """A number of a system in every seed: -> (seeds,), nan where it was not measured.

    "A - B", of systems or of numbers, is the difference.
    """
    for names, parts in ((system.split(" - "), lambda name: (name, path)),
                         (path.split(" - "), lambda name: (system, name))):
        if len(names) == 2:
            return np.subtract(*(measured(summaries, *parts(name)) for name in names))
    return np.array([value(s, path) for s in summaries[system]], float)          # None becomes nan


def difference(summaries, method, other, path):
    """What a claim is judged by: a number of one system less that of the other, in every seed, (seeds,)."""
    return measured(summaries, method, path) - (measured(summaries, other, path) if other else 0)


def headlines(results):
    """The claims of HEADLINES with their numbers: results {study: {system: summaries}} -> table."""
    rows = []
    for study, words, method, other, path, digits in HEADLINES:
        name, _, *_, number, sign, least = next(
            claim for claim in CLAIMS[study]
            if claim[2:4] == (method, other) and claim[4].removeprefix("log ") == path)
        found = results[study]
        rows.append([name, words, other, spread(found[other], path, digits),
                     method, spread(found[method], path, digits),
                     judge(difference(found, method, other, number), sign, least)])
    return table(["", "claim", "against", "measured", "system", "measured", "verdict"], rows)


def committed(folder=Path(__file__).parent / "results"):
    """The numbers behind the README: {study: {system: summaries}}."""
    return {study: json.loads((folder / f"{study}-tiny.json").read_text(encoding="utf-8"))
            for study in dict.fromkeys(study for study, *_ in HEADLINES)}


def side_by_side(summaries, a, b, paths):
    """Two systems under the same conditions, "A, condition" and "B, condition": a table with a row for each,
    and the names of the systems that it shows.  The ratio, B to A, is that of geometric means."""
    rows, shown = [], []
    for name in summaries:
        other = b + name.removeprefix(a)
        if (name == a or name.startswith(a + ", ")) and other in summaries:
            row = [name.removeprefix(a).removeprefix(", ") or "default"]
            for _, path, digits in paths:
                mine, theirs = ([value(s, path) for s in summaries[system]] for system in (name, other))
                row += [spread(summaries[name], path, digits), spread(summaries[other], path, digits)]
                row.append("" if None in mine + theirs else
                           f"{np.exp(np.mean(np.log(theirs) - np.log(mine))):.2f}")
            rows.append(row)
            shown += [name, other]
    heads = [head for heading, _, _ in paths for head in (f"{heading}: {a}", b, "ratio")]
    return table(["adapted with", *heads], rows), shown


def verdicts(paper, summaries):
    """The report of a paper: a row per system, systems in pairs, and a row per claim."""
    n = min(map(len, summaries.values()))
    pairs, shown = side_by_side(summaries, *PAIRS[paper]) if paper in PAIRS else ("", [])
    systems = {name: found for name, found in summaries.items() if name not in shown}
    if paper == "real" and systems:                            # and rows for what needs no model
        systems |= {f"no model: {name}": [found]
                    for name, found in without_a_model(next(iter(systems.values()))[0]).items()}
    text = f"Mean ± sd over {n} seeds.\n\n" + columns("system", systems, COLUMNS[paper]) + "\n\n"
    for begin, shown_there in MORE_COLUMNS.get(paper, ()):
        some = {name: found for name, found in systems.items() if name.startswith(begin)}
        text += (columns("system", some, shown_there) + "\n\n") * bool(some)
    text += (pairs + "\n\n") * bool(shown)
    claims = []
    for claim, words, method, other, path, sign, least in CLAIMS[paper]:
        if not set(filter(None, method.split(" - ") + other.split(" - "))) <= summaries.keys():
            continue                                           # a part of the study
        d = difference(summaries, method, other, path)
        if np.isnan(d).any():
            continue
        sd = f" ± {np.std(d, ddof=1):.3f}" if len(d) > 1 else ""
        claims.append([f"{claim} {words}", method, other, f"{np.mean(d):+.3f}{sd}", judge(d, sign, least)])
    if {"skyline", "prealign", "joint"} <= summaries.keys():
        closed = [(value(j, p) - value(a, p)) / (value(j, p) - value(s, p)) for p in ["log perplexity.clone"]
                  for j, a, s in zip(summaries["joint"], summaries["prealign"], summaries["skyline"])]
        text += ("Share of the gap in clone loss between joint and skyline that prealign closes: "
                 f"{np.mean(closed):.2f}\n\n")
    if shown:                                                  # pairs: a, b, a, b ...
        shares = [f"{np.median([updates_needed(*pair) for pair in zip(summaries[b], summaries[a])]):.2f} "
                  f"({a})" for a, b in zip(shown[::2], shown[1::2])]
        text += (f"Updates until {shown[1]} is where {shown[0]} ends, as a share of its updates (median over "
                 f"seeds; inf: never): {', '.join(shares)}\n\n")
    return text + table(["claim", "system", "against", "difference", "verdict"], claims) + "\n"


def updates_needed(summary, other):
    """Updates until the perplexity of the new language is what it is near the end of another run, as a share
    of that run's updates; infinite if it never is.

    The last perplexity of a run is of more rows than those before it, so it is left out.
    """
    ours, theirs = ({int(step): p for step, p in next(iter(s["adapt"].values()))["perplexity"].items()}
                    for s in (summary, other))
    for found in (ours, theirs):
        del found[max(found)]
    last = max(theirs)
    return min((step for step, found in ours.items() if found <= theirs[last]), default=np.inf) / last


def along(tree, paths):
    """What lies along some paths, lists of keys; all of a part where one of them is no key of it (an index,
    `new`)."""
    rests = {key: [rest for first, *rest in paths if first == key] for key, *_ in paths}
    if not isinstance(tree, dict) or not rests.keys() <= tree.keys():
        return tree
    return {key: tree[key] if [] in rest else along(tree[key], rest) for key, rest in rests.items()}


def behind(paper, summary):
    """What the report of a paper reads of a summary."""
    tables = [COLUMNS[paper], *(more for _, more in MORE_COLUMNS.get(paper, ()))]
    paths = [path for shown in tables for _, path, _ in shown] + [claim[4] for claim in CLAIMS[paper]]
    paths += ["seed", *(["languages", "baselines", "chance"] if paper == "real" else [])]
    keys = [part.removeprefix("log ").split(".") for path in paths for part in path.split(" - ")]
    if paper == "real":                                        # rows for what needs no model read more of it
        keys = [path[:1] for path in keys]
    return along(summary, [path for path in keys if path[0] in summary])


def conclude(paper, summaries, folder):
    """The report of a paper, written to folder/report-<paper>.md, and the numbers behind it, to five digits,
    beside it; returns the text to print."""
    def rounded(tree):
        if isinstance(tree, dict):
            return {key: rounded(part) for key, part in tree.items()}
        if isinstance(tree, list):
            return [rounded(part) for part in tree]
        return float(f"{tree:.5g}") if isinstance(tree, float) else tree
    kept = {name: [rounded(behind(paper, s)) for s in found] for name, found in summaries.items()}
    text, path = verdicts(paper, kept), folder / f"report-{paper}.md"
    path.write_text(text, encoding="utf-8")
    path.with_suffix(".json").write_text(json.dumps(kept), encoding="utf-8")
    return f"\n{text}\nwritten to {path}; the numbers behind it to {path.with_suffix('.json')}"


if __name__ == "__main__":
    print(headlines(committed()))
