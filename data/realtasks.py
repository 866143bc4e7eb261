"""Readers of four public test sets, as multiple choice: each candidate ends the prompt, the likeliest wins.

  pawsx        DIR/<language>/dev_2k.tsv, test_2k.tsv                     paraphrase or not (Yang et al. 2019)
  xnli         DIR/xnli.dev.tsv, xnli.test.tsv                            entailment (Conneau et al. 2018)
  xcopa        DIR/<language>/val.<language>.jsonl, test.<language>.jsonl cause or effect (Ponti et al. 2020)
  xstorycloze  DIR/spring2016.val.<language>.tsv.split_20_80_train.tsv, ..._eval.tsv     (Lin et al. 2022)

The wording is that of Lin et al. ("right? Yes,"), in English for every language.  The first file of a set is
the split `val`, the second `test`.  Items of all languages with the same number become one item.
"""
import json
from pathlib import Path

from data.text import DataError, lines_of

NO_SENTENCE = ("NS", "")             # PAWS-X writes NS where there is no translation
ENTAILMENT = {"entailment": 0, "neutral": 1, "contradiction": 2}


def table(path):
    """Rows of a file with a header line, parted by tabs, or of JSON lines: yields (number, {name: value})."""
    header = None
    for number, line in lines_of(path):
        if not line:
            continue
        if str(path).endswith(".jsonl"):
            try:
                yield number, dict(json.loads(line))
            except (ValueError, TypeError):
                raise DataError(f"{path} line {number} is no JSON object: one item a line") from None
        elif header is None:
            header = line.split("\t")
        else:
            yield number, dict(zip(header, line.split("\t")))


class Row:
    """A row whose fields are asked for by name.  Raises DataError naming file, line and the missing field."""

    def __init__(self, path, number, fields):
        self.path, self.number, self.fields = path, number, fields

    def __getitem__(self, name):
        if name not in self.fields:
            raise DataError(f"{self.path} line {self.number} has no field '{name}': it has "
                            f"{', '.join(map(str, self.fields)) or 'none'}")
        return str(self.fields[name])

    def choice(self, name, answers):
        """A field that must be one of some answers: -> its place among them."""
        if self[name] not in answers:
            raise DataError(f"{self.path} line {self.number}: {name} is {self[name]!r}, "
                            f"expected one of {', '.join(answers)}")
        return list(answers).index(self[name])


def pawsx(row):
    """"A, right? Yes, B" or "A, right? No, B"."""
    first, second = row["sentence1"], row["sentence2"]
    answer = row.choice("label", ("1", "0"))
    if first in NO_SENTENCE or second in NO_SENTENCE:
        return None
    return row["id"], f"{first.rstrip(' .')}, right?", [f"{word}, {second}" for word in ("Yes", "No")], answer


def xnli(row):
    """"Premise, right? Yes | Also | No, hypothesis"."""
    answer = row.choice("gold_label", tuple(ENTAILMENT))
    candidates = [f"{word}, {row['sentence2']}" for word in ("Yes", "Also", "No")]
    return row["pairID"], f"{row['sentence1'].rstrip(' .')}, right?", candidates, answer


def xcopa(row):
    """"Premise because | so choice"."""
    link = ("because", "so")[row.choice("question", ("cause", "effect"))]
    answer = row.choice("label", ("0", "1"))
    return row["idx"], f"{row['premise'].rstrip('.。')} {link}", [row["choice1"], row["choice2"]], answer


def xstorycloze(row):
    """Four sentences and two endings."""
    prompt = " ".join(row[f"InputSentence{k}"] for k in (1, 2, 3, 4))
    candidates = [row[f"RandomFifthSentenceQuiz{k}"] for k in (1, 2)]
    return row["InputStoryid"], prompt, candidates, row.choice("AnswerRightEnding", ("1", "2"))


# reader of a row, and the files of val and test; {} is the language, and a file without it holds them all
TASKS = dict(
    pawsx=(pawsx, "{0}/dev_2k.tsv", "{0}/test_2k.tsv"),
    xnli=(xnli, "xnli.dev.tsv", "xnli.test.tsv"),
    xcopa=(xcopa, "{0}/val.{0}.jsonl", "{0}/test.{0}.jsonl"),
    xstorycloze=(xstorycloze, "spring2016.val.{0}.tsv.split_20_80_train.tsv",
                 "spring2016.val.{0}.tsv.split_20_80_eval.tsv"))


def read(task, folder, languages):
    """The items of one task: -> list of (split, item), number of rows without a sentence (skipped).

    Raises DataError where no file of the languages is there, or a row lacks a field.
    """
    reader, *files = TASKS[task]
    items, skipped = {}, 0
    for split, pattern in zip(("val", "test"), files):
        for name in languages:
            path = Path(folder) / pattern.format(name)
            if not path.exists():
                continue
            for number, fields in table(path):
                row = Row(path, number, fields)
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
    if not items:
        looked = " or ".join(str(Path(folder) / pattern.format(languages[0])) for pattern in files)
        raise DataError(f"--tasks {task}={folder}: no item found; it needs {looked}")
    return [(split, item) for (split, _, _), item in items.items()], skipped
