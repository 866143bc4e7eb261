"""Readers of four public test sets, as multiple choice: each candidate continues the prompt.

The wording is that of Lin et al. 2022 ("right? Yes,"), in English for every language.  Rows of several
languages with the same id become one item.
"""
import json
from pathlib import Path

from data.files import UserError, refuse
from data.text import clean, lines_of

STOP = " .。．｡।۔။።"                # full stops of several scripts, and the space before one
NO_SENTENCE = ("NS", "")             # PAWS-X writes NS where a translation is missing


class Row(dict):
    """The fields of one line, all str.  A missing one raises UserError with file, line and name."""

    def __init__(self, place, fields):
        super().__init__((str(k), clean(str(v).replace("\t", " ").encode().decode()))
                         for k, v in dict(fields).items() if v is not None)
        self.place = place                                     # "<path> line <number>"

    def __missing__(self, name):
        raise UserError(f"{self.place} has no field '{name}': it has {', '.join(self) or 'none'}")

    def index(self, name, answers):
        """The position of a field's value among the possible answers: -> int."""
        refuse(self[name] not in answers,
               f"{self.place}: {name} is {self[name]!r}, expected one of {', '.join(answers)}")
        return answers.index(self[name])


def rows_of(path):
    """Yield the Rows of a tab-separated file with a header, or of JSON lines."""
    header = None
    for number, line in lines_of(path):
        place = f"{path} line {number}"
        if not line.strip():
            continue
        if str(path).endswith(".jsonl"):
            try:
                yield Row(place, json.loads(line))
            except (ValueError, TypeError, RecursionError):
                raise UserError(f"{place} is not a JSON object: write one item per line") from None
        elif header:
            yield Row(place, zip(header, line.split("\t")))
        else:
            header = line.split("\t")


# Each reader: Row -> (id, prompt, candidates, index of the right one), or None if a sentence is missing.

def pawsx(row):
    """Read "A, right? Yes, B" or "A, right? No, B" (Yang et al. 2019)."""
    first, second = row["sentence1"], row["sentence2"]
    answer = row.index("label", ("1", "0"))
    if first in NO_SENTENCE or second in NO_SENTENCE:
        return None
    return row["id"], f"{first.rstrip(STOP)}, right?", [f"{word}, {second}" for word in ("Yes", "No")], answer


def xnli(row):
    """Read "premise, right? Yes | Also | No, hypothesis" (Conneau et al. 2018)."""
    answer = row.index("gold_label", ("entailment", "neutral", "contradiction"))
    candidates = [f"{word}, {row['sentence2']}" for word in ("Yes", "Also", "No")]
    return row["pairID"], f"{row['sentence1'].rstrip(STOP)}, right?", candidates, answer


def xcopa(row):
    """Read "premise because | so choice" (Ponti et al. 2020)."""
    link = ("because", "so")[row.index("question", ("cause", "effect"))]
    answer = row.index("label", ("0", "1"))
    return row["idx"], f"{row['premise'].rstrip(STOP)} {link}", [row["choice1"], row["choice2"]], answer


def xstorycloze(row):
    """Read four sentences and two endings (Lin et al. 2022)."""
    prompt = " ".join(row[f"InputSentence{k}"] for k in (1, 2, 3, 4))
    candidates = [row[f"RandomFifthSentenceQuiz{k}"] for k in (1, 2)]
    return row["InputStoryid"], prompt, candidates, row.index("AnswerRightEnding", ("1", "2"))


# the reader of a row, and the files of val and test below the folder of --tasks; {0} is the language.  A file
# without {0} holds all languages: its column "language" names that of each row
TASKS = dict(
    pawsx=(pawsx, "{0}/dev_2k.tsv", "{0}/test_2k.tsv"),
    xnli=(xnli, "xnli.dev.tsv", "xnli.test.tsv"),
    xcopa=(xcopa, "{0}/val.{0}.jsonl", "{0}/test.{0}.jsonl"),
    xstorycloze=(xstorycloze, "spring2016.val.{0}.tsv.split_20_80_train.tsv",
                 "spring2016.val.{0}.tsv.split_20_80_eval.tsv"))


def read(task, folder, languages):
    """Read the items of one test set: -> list of (split, item), number of rows without a sentence."""
    reader, *patterns = TASKS[task]
    items, skipped = {}, 0
    for split, pattern in zip(("val", "test"), patterns):
        for name in languages:
            path = Path(folder) / pattern.format(name)
            for row in rows_of(path) if path.exists() else ():
                if "{" not in pattern and row["language"] != name:
                    continue
                found = reader(row)
                if found is None:
                    skipped += 1
                    continue
                key, prompt, candidates, answer = found
                item = items.setdefault((split, key, answer), dict(
                    id=f"{split}-{key}", task=task, prompt={}, candidates={}, answer=answer))
                item["prompt"][name], item["candidates"][name] = prompt, candidates
    if not any(split == "test" for split, *_ in items):
        needed = " or ".join(str(Path(folder) / pattern.format(languages[0])) for pattern in patterns)
        raise UserError(f"{task}: no test item found in {folder}, expected {needed}")
    return [(split, item) for (split, _, _), item in items.items()], skipped
