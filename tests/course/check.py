"""Say in one line whether an exercise is solved, or what is wrong with it."""
import argparse
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent))
import align  # noqa: E402
from data.lab import claims, tables  # noqa: E402
from model import GPT, IGNORE, ModelConfig, lm_loss, plain_contrastive_loss  # noqa: E402


def near(found, wanted, why, within=1e-4):
    assert found is not None, "the function returns nothing"
    found, wanted = (x.item() if torch.is_tensor(x) else x for x in (found, wanted))
    assert abs(found - wanted) < within, f"{found:.6g} instead of {wanted:.6g}: {why}"


def check_1(student):
    words, translations = [[5, 6], [7], [8, 9]], [[70, 71, 72], None, [80]]
    found, wanted = student.code_switch(words, translations), ([70, 71, 72, 7, 80], [5, IGNORE, IGNORE, 7, 8])
    assert found == wanted, f"{words} and {translations} become {found} instead of {wanted}"


def check_2(student):
    loss, concept = student.contrastive_loss, torch.arange(3).repeat(2)
    near(loss(torch.ones(6, 4), concept, 0.5), math.log(5), "of 6 equal words, none is its own candidate")
    near(loss(3 * torch.eye(3).repeat(2, 1), concept, 0.5), math.log(1 + 4 * math.exp(-2)),
         "three orthogonal pairs, so that the cosines are 1 and 0")
    near(loss(torch.eye(2).repeat(3, 1), torch.arange(2).repeat(3), 0.5), math.log(2 + 3 * math.exp(-2)),
         "with three translations, each pair has its own logarithm")
    states, concept = torch.randn(6, 4), torch.tensor([0, 0, 0, 1, 1, 2])
    near(loss(states, concept, 0.1), plain_contrastive_loss(states[None], concept, 0.1),
         "it differs from plain_contrastive_loss, which is the mean over pairs and not over words")


def check_3(student):
    loss, states, concept = student.multilingual_contrast, torch.randn(8, 4, 6), torch.arange(4).repeat(2)
    mask = torch.arange(4) < torch.tensor([3, 4, 2, 4, 3, 3, 2, 2])[:, None]
    near(loss(torch.ones(8, 4, 6), mask, 0.5), math.log(4), "candidates are the 4 rows of the other side")
    found, padded = loss(states, mask, 0.5), loss(states.masked_fill(~mask[..., None], 9), mask, 0.5)
    near(padded, found, "padding changes the loss: take the last token that is real")
    vectors = align.sentence_states(SimpleNamespace(hidden=lambda tokens, max_level: [None, states]), None, mask)
    near(found, align.multilingual_contrast(vectors, concept, 0.5),
         "it differs from align.multilingual_contrast: cosines of last tokens, and all 2n rows are anchors")


def check_4(student):
    weight, other = nn.Parameter(torch.ones(100, 50)), nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight, other], lr=0.1, weight_decay=0.0)
    weight.grad, other.grad = torch.ones(100, 50), torch.ones(3)
    optimizer.step()
    student.reset(weight, optimizer, torch.Generator().manual_seed(0))
    near(weight.std(), 0.02, "standard deviation of the weight, which changes in place", 0.001)
    for name, value in optimizer.state[weight].items():
        near(value.abs().sum(), 0, f"AdamW's {name} of the weight is not reset")
    near(optimizer.state[other].get("step", 0), 1, "step counter of another parameter, which is not reset")
    before = weight.detach().clone()
    optimizer.step()
    near((before - weight).mean(), 0.1, "the first step after a reset moves a weight by the learning rate")


def check_5(student):
    model = GPT(ModelConfig(vocab_size=30, n_layer=1, n_head=2, d_model=16, context_len=8)).initialise(0)
    old, new, losses = torch.arange(8)[None], torch.arange(30, 38)[None], []
    before = model.logits(old)
    student.expand(model, 50, torch.Generator().manual_seed(0))
    learning = [p for p in model.parameters() if p.requires_grad]
    near(sum(p.numel() for p in learning), 2 * 50 * 16, "numbers that learn, 50 rows of embedding and head")
    near(torch.cat([p.flatten() for p in learning]).std(), 0.02, "standard deviation of the new rows", 0.002)
    optimizer = torch.optim.AdamW(learning, lr=0.1, weight_decay=0.1)
    for _ in range(5):
        losses.append(lm_loss(model.logits(new[:, :-1]), new[:, 1:]))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0], "training does not lower the loss of text in the new language"
    near((model.logits(old)[..., :30] - before).abs().max(), 0, "change of the old scores by training")


def check_6(student):
    for found, wanted in zip(student.interval([1, 2, 6], [0, 1, 2]) or [None], (2 - 4.303, 2 + 4.303)):
        near(found, wanted, "the differences 1, 1 and 4 have mean 2 and sample standard deviation sqrt(3)")
    study, rows = claims.committed()["prealign"], []
    paths = ["perplexity.clone", "word_retrieval", "knowledge_mixed.clone-en", "knowledge.clone"]
    for name in ("joint", "init only", "switching only", "published", "vanilla", "kept"):
        low, high = student.interval(*(claims.measured(study, s, paths[-1]) for s in (name, "joint")))
        rows.append([name, *(tables.spread(study[name], p, 2) for p in paths), f"[{low:+.2f}, {high:+.2f}]"])
    return "\n" + tables.table(["system", *map(tables.heading, paths), "minus joint"], rows)


def check(number, folder=HERE):
    """-> (is it solved?, one line that says so or what is wrong); a reading exercise adds its table."""
    path, space = Path(folder) / f"exercise_{number}.py", {}
    exec(compile(path.read_text(encoding="utf-8"), path, "exec"), space)
    torch.manual_seed(0)
    try:
        return True, "solved" + (globals()[f"check_{number}"](SimpleNamespace(**space)) or "")
    except NotImplementedError:
        return False, f"not written yet: fill in the function in {'/'.join(path.parts[-3:])}"
    except AssertionError as error:
        return False, f"not solved: {error}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", choices="123456")
    parser.add_argument("folder", nargs="?", default=HERE, help="tests/course/solutions has solutions")
    given = parser.parse_args()
    solved, words = check(given.number, given.folder)
    print(f"\033[{32 if solved else 31}mexercise {given.number}: {words}\033[0m")
    sys.exit(not solved)
