"""A public checkpoint from its folder to a prepared folder, a run, and a checkpoint that is written back."""
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import train
from align import sentence_states
from data import tasks
from data.corpus import Corpus, translation
from data.files import UserError
from data.folder import read_meta
from data.lab.options import default_out, flags_of, parse_args
from data.lab.states import mean_states
from data.lab.studies import SYSTEMS, systems_of
from data.prepare import main as prepare
from data.pretrained import export_pretrained, load_pretrained
from data.real.build import write
from data.real.vocabulary import of_checkpoint
from model import GPT, LowRank, ModelConfig, add_adapters, merge_adapters
from prealign import word_states
from test_real import sentences, source

TEXT = [line for name in ("en", "de") for line in sentences(name, 0, 200)]
SHORT = ("--context_len", "96", "--eval_items", "6", "--generate_items", "4", "--log_every", "2", "--dtype", "float32",
         "--afp_steps", "4", "--afp_batch", "4")


def byte_level():
    """As GPT-2's: a text gets a token in front, which we leave out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<end>", "<begin>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 1)])
    return tokenizer


def sentence_piece():
    """As Llama 2's: spaces are written as ▁, one more is put in front, and unknown letters become bytes."""
    tokenizer = Tokenizer(models.BPE())
    # for training: no token holds two words, or a word and a mark
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=100, show_progress=False))
    state = json.loads(tokenizer.to_str())
    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))])}
    for token in state["model"]["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    state["pre_tokenizer"] = None
    state["model"] |= dict(vocab=vocabulary, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def checkpoint(folder, tokenizer, tied=True, **config):
    """A random model of two layers whose vocabulary has 7 rows more than its tokenizer has tokens."""
    sizes = ModelConfig(tokenizer.get_vocab_size() + 7, 2, 4, 32, 96, n_kv_head=2, d_ff=48, gated=True, tied=tied)
    content = json.loads(tokenizer.to_str())
    export_pretrained(GPT(sizes).initialise(3), folder, content, dict(bos_token_id=1, eos_token_id=0) | config)
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("hub") / "small", byte_level())


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    """English, German and a new Czech with the tokenizer of the checkpoint."""
    out = tmp_path_factory.mktemp("prepared") / "three"
    write(out, source(), new_subwords=40, checkpoint=base)
    return out


def command(base, folder, out, *flags):
    return ["--pretrained", str(base), "--data", str(folder), "--languages", "en,de", *SHORT, "--out", str(out), *flags]


def weights(model):
    return {name: p.clone() for name, p in model.state_dict().items()}


# --- the tokenizer ------------------------------------------------------------------------------------------

def test_what_metaspace_does_to_a_whole_text_is_left_out(tmp_path):
    tokenizer = sentence_piece()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    found, _, _ = of_checkpoint(checkpoint(tmp_path / "hub", tokenizer))
    assert tokenizer.encode("\n", add_special_tokens=False).tokens == ["▁", "<0x0A>"]
    assert found.encode("\n").tokens == ["<0x0A>"] and found.encode("a dog").tokens[0][0] == "a"


def test_text_of_a_folder_that_spells_a_special_token_does_not_contain_one(tmp_path):
    base, plain = checkpoint(tmp_path / "hub", byte_level()), source()
    write(tmp_path / "data", replace(plain, text=lambda name, split: (
        f"{document} a <end> b" for document in plain.text(name, split))), new_subwords=40, checkpoint=base)
    corpus = Corpus(tmp_path / "data", ["en", "de"])
    corpus.add_language("cs", 10**6)
    assert not any((stream == 0).any() for stream in corpus.streams.values())
    for name in ("en", "cs"):
        spelled = corpus.encode(" a <end> b", name, separator=False).tolist()
        assert not {0, 1} & set(spelled) and corpus.decode(spelled) == "a <end> b"


@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_the_text_of_a_folder_is_spelled_by_the_tokenizer_of_the_checkpoint(make, tmp_path):
    base = checkpoint(tmp_path / "hub", make())
    write(tmp_path / "data", source(), new_subwords=40, checkpoint=base)
    corpus, meta = Corpus(tmp_path / "data", ["en", "de"]), read_meta(tmp_path / "data")
    assert corpus.base_vocab == corpus.vocab_size == make().get_vocab_size() + 7 and meta["separator"] == 1
    for name in ("en", "de"):
        for text in sentences(name, 0, 20):
            tokens = corpus.encode(text, name)
            assert tokens[0] == 1 and (tokens != 1).sum() == len(tokens) - 1
            assert corpus.decode(tokens) == text
            marks = text.count(".") + text.count(",")
            assert corpus.starts[tokens].sum() == 1 + len(text.split()) + marks
    assert corpus.decode(corpus.encode("Straße 北", "de")) == "Straße 北"
    assert corpus.decode(corpus.newline("en")) == "\n" and len(corpus.newline("en")) == 1
    assert corpus.ends[corpus.newline("en")[0]] and corpus.ends[1]
    assert sorted(t.strip() for t in corpus.documents("de", "train", 10**6)) == sorted(source().text("de", "train"))
    english = corpus.encode(sentences("en", 0, 1)[0], "en")
    assert corpus.add_language("cs", 400) > 0 and corpus.vocab_size == meta["new_vocab"]["cs"]
    assert np.array_equal(corpus.encode(sentences("en", 0, 1)[0], "en"), english)
    texts = [*sentences("cs", 0, 20), "Jeden unavený muž"]
    czech = np.concatenate([corpus.encode(text, "cs") for text in texts])
    assert [corpus.decode(corpus.encode(text, "cs")) for text in texts] == texts
    assert czech.max() < corpus.vocab_size and (czech >= corpus.base_vocab).any()
    # ids between the tokenizer's tokens and the model's rows stay empty
    assert not set(range(corpus.base_vocab - 7, corpus.base_vocab)) & set(czech.tolist())
    learned = [corpus.tokenizer.id_to_token(i) for i in range(corpus.base_vocab, corpus.vocab_size)]
    assert learned and not any("<0x" in token or re.search("[ Ġ▁]", token[1:]) for token in learned)
    spelled = "".join(corpus.tokenizer.id_to_token(i) for i in corpus.subwords[0])
    assert spelled == corpus.tokenizer.id_to_token(corpus.base_vocab)


def test_a_text_that_spells_a_special_token_does_not_contain_one(tmp_path):
    base = checkpoint(tmp_path / "hub", byte_level())
    tokenizer, n, separator = of_checkpoint(base)
    assert separator == 1 and n == 327
    ids = tokenizer.encode(" a <begin> b <end>").ids
    assert not {0, 1} & set(ids) and tokenizer.decode(ids) == " a <begin> b <end>"


@pytest.mark.parametrize("config, wanted", [(dict(bos_token_id=None), 0), (dict(bos_token_id=None, eos_token_id=[0, 1]), 0)])
def test_without_a_first_token_texts_begin_with_the_last(config, wanted, tmp_path):
    assert of_checkpoint(checkpoint(tmp_path / "hub", byte_level(), **config))[2] == wanted


@pytest.mark.parametrize("config, message", [
    (dict(bos_token_id=320), "bos_token_id is 320, not between 0 and 319"),
    (dict(bos_token_id="x"), "bos_token_id is 'x'"),
    (dict(bos_token_id=None, eos_token_id=None), "bos_token_id is None"),
])
def test_special_tokens_that_the_tokenizer_lacks_are_refused(config, message, tmp_path):
    with pytest.raises(UserError, match=message):
        of_checkpoint(checkpoint(tmp_path / "hub", byte_level(), **config))


def test_other_tokenizers_and_folders_are_refused_in_one_line(tmp_path, base, capsys):
    unigram = checkpoint(tmp_path / "unigram", byte_level())
    state = json.loads((unigram / "tokenizer.json").read_text(encoding="utf-8"))
    (unigram / "tokenizer.json").write_text(json.dumps(state | dict(model=dict(type="Unigram"))), encoding="utf-8")
    broken = checkpoint(tmp_path / "broken", byte_level())
    (broken / "tokenizer.json").write_text(json.dumps(state | dict(decoder=dict(type="?"))), encoding="utf-8")
    for i, shape in enumerate((dict(model="BPE"), dict(normalizer=["NFC"]), dict(normalizer="NFC"))):
        other = checkpoint(tmp_path / f"shape{i}", byte_level())
        (other / "tokenizer.json").write_text(json.dumps(state | shape), encoding="utf-8")
        with pytest.raises(UserError, match="cannot be read"):
            of_checkpoint(other)
    small = checkpoint(tmp_path / "small", byte_level())
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    (small / "config.json").write_text(json.dumps(config | dict(vocab_size=300)), encoding="utf-8")
    for where, message in ((unigram, "only byte-pair encoding"), (broken, "cannot be read"),
                           (small, "vocab_size is 300, not between 320"), (tmp_path, "config.json and tokenizer.json")):
        with pytest.raises(UserError, match=message):
            of_checkpoint(where)
    for flags, message in ((["--tokenizer", str(base), "--vocab_size", "500"], "--vocab_size goes with"),
                           (["--tokenizer", str(base), "--disjoint"], "--disjoint goes without")):
        with pytest.raises(SystemExit):
            prepare(["--download", "multi30k", *flags])
        assert message in capsys.readouterr().err


# --- states -------------------------------------------------------------------------------------------------

def test_states_are_read_after_the_first_token_and_without_it(base, folder):
    model, corpus = load_pretrained(base)[0], Corpus(folder, ["en", "de"])
    assert corpus.prefix == 1
    text = sentences("de", 0, 1)[0]
    ids = torch.from_numpy(corpus.encode(text, "de"))                            # it begins with the prefix
    wanted = model.hidden(ids[None])[1][0, 1:]
    assert torch.allclose(mean_states(model, corpus, "de", [text], 1)[0], wanted.mean(dim=0), atol=1e-6)
    tokens, mask = map(torch.from_numpy, tasks.parallel_sentences(corpus, [translation(dict(en="A.", de=text))], [1], 40))
    assert torch.equal(tokens[1][mask[1]], ids[1:]) and tokens[1][0] == 1 and not mask[1][0]
    assert torch.allclose(sentence_states(model, tokens, mask, 1, "last")[1], wanted[-1], atol=1e-6)
    tokens, mask = tasks.parallel_sentences(corpus, [translation(dict(en="A.", de=text))], [1], 4)
    assert tokens.shape == (2, 4) and np.array_equal(tokens[1][1:], ids[-3:].numpy())
    words, mask = torch.tensor([[5, 6], [7, 0]]), torch.tensor([[True, True], [True, False]])
    found = word_states(model, words, mask, prefix=1)
    for word, states in zip(([5, 6], [7]), found.transpose(0, 1)):
        levels = [level[0, 1:].mean(dim=0) for level in model.hidden(torch.tensor([[1, *word]]))]
        levels.append(model.head.weight[word].mean(dim=0))
        assert torch.allclose(states, torch.stack(levels), atol=1e-6)


# --- adapters -----------------------------------------------------------------------------------------------

def test_adapters_change_nothing_at_first_and_only_they_learn():
    model, tokens = GPT(ModelConfig(30, 2, 2, 16, 8)).initialise(0), torch.arange(8)[None]
    start, before = model.logits(tokens), weights(model)
    add_adapters(model, 3)
    assert torch.equal(model.logits(tokens), start)
    learning = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in learning) == 2 * 3 * (16 + 48 + 16 + 16 + 16 + 64 + 64 + 16)
    optimizer = torch.optim.AdamW(model.param_groups(0.1, 0.1, 0.0))
    for _ in range(2):
        optimizer.zero_grad()
        model.logits(tokens).square().mean().backward()
        optimizer.step()
    changed = model.logits(tokens)
    assert not torch.allclose(changed, start, atol=1e-3)
    frozen = {name.replace(".linear.", "."): p for name, p in model.state_dict().items()}
    assert all(torch.equal(frozen[name], p) for name, p in before.items())
    merge_adapters(model)
    assert torch.allclose(model.logits(tokens), changed, atol=1e-5)
    assert model.state_dict().keys() == before.keys() and not any(isinstance(m, LowRank) for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_without_adapters_is_merged_into_itself():
    model = GPT(ModelConfig(30, 2, 2, 16, 8)).initialise(0)
    before = weights(model)
    assert all(torch.equal(p, before[name]) for name, p in merge_adapters(model).state_dict().items())


# --- runs ---------------------------------------------------------------------------------------------------

def test_without_a_stage_the_checkpoint_itself_is_measured(base, folder, tmp_path, capsys):
    assert train.main(command(base, folder, tmp_path / "base")) == 0
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "base/summary.json").read_text(encoding="utf-8"))
    assert summary["preset"] == "small" and summary["tokens"] == 0 and "small" in shown
    assert set(summary["perplexity"]) == {"en", "de"} and set(summary["translation"]) == {"en-de", "de-en"}
    model, rows = load_pretrained(base)[0], Corpus(folder, ["en", "de"]).validation_rows("de", 150, 97, "test")
    logits = model.logits(torch.from_numpy(rows[:, :-1]))
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows[:, 1:]).flatten())
    assert summary["perplexity"]["de"] == pytest.approx(math.exp(loss.item()), rel=1e-4)
    assert train.main(command(base, folder, tmp_path / "base")) == 0             # shown again
    assert train.main(["--sample", "A dog", "--out", str(tmp_path / "base")]) == 0
    assert "A dog" in capsys.readouterr().out
    assert train.main(["--eval_only", "--out", str(tmp_path / "base")]) == 0


@pytest.mark.parametrize("flags, moved", [
    (["--method", "align"], True), (["--method", "align", "--afp_lora", "2"], False),
    (["--method", "prealign", "--steps", "8", "--prealign_steps", "4", "--prealign_words", "8"], True),
    (["--method", "align", "--adapt_to", "cs", "--adapt_steps", "4"], True),
])
def test_what_a_method_learns_is_exported_and_read_again(base, folder, tmp_path, capsys, flags, moved):
    out, exported = tmp_path / "run", tmp_path / "exported"
    assert train.main(command(base, folder, out, *flags)) == 0
    assert train.main(["--export", str(exported), "--out", str(out)]) == 0
    assert f"written to {exported}" in capsys.readouterr().out
    start, config = load_pretrained(base)
    model, exported_config = load_pretrained(exported)
    assert exported_config["bos_token_id"] == config["bos_token_id"]
    body = "body.0.feed_in.weight"
    assert not torch.equal(model.state_dict()[body], start.state_dict()[body])
    old = model.embed.weight[:len(start.embed.weight)]
    assert torch.equal(old, start.embed.weight) == (not moved)
    state = torch.load(out / "last.pt", weights_only=True)["model"]
    if "--afp_lora" in flags:
        name = "body.0.feed_in."
        merged = state[name + "linear.weight"] + state[name + "up"] @ state[name + "down"]
        assert torch.allclose(model.state_dict()[body], merged, atol=1e-6)
    else:
        assert torch.equal(model.state_dict()[body], state[body])
    text = "Ein Hund" if "cs" not in flags else "pes"
    tokenizer = Tokenizer.from_file(str(exported / "tokenizer.json"))
    before = Tokenizer.from_file(str(base / "tokenizer.json")).encode("A").tokens
    assert tokenizer.encode("A").tokens == before and before[0] == "<begin>"   # the template is kept
    assert max(tokenizer.encode(text).ids) < len(model.embed.weight)
    assert (tokenizer.get_vocab_size() > 320) == ("cs" in flags)


def test_a_run_with_adapters_that_was_stopped_equals_one_that_was_not(base, folder, tmp_path):
    flags = ["--method", "align", "--afp_lora", "2", "--log_every", "1"]
    assert train.main(command(base, folder, tmp_path / "whole", *flags)) == 0
    cfg, modes = parse_args(command(base, folder, tmp_path / "parts", *flags))
    run, save = train.Run(cfg, tmp_path / "parts", quiet=True), train.Run.save
    with run.lock():
        run.enter()
        run.save = lambda **state: (save(run, **state), setattr(run, "stop", 15 * (state["step"] == 2)))
        with pytest.raises(KeyboardInterrupt):
            train.recipe(run)
    assert train.main(command(base, folder, tmp_path / "parts", *flags)) == 0
    a, b = (torch.load(tmp_path / name / "last.pt", weights_only=True)["model"] for name in ("whole", "parts"))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_checkpoint_sets_the_options_and_flags_win(base, folder):
    cfg, _ = parse_args(["--pretrained", str(base), "--data", str(folder), "--method", "align"])
    assert (cfg.n_layer, cfg.n_head, cfg.d_model, cfg.afp_rows, cfg.afp_lr) == (2, 4, 32, 0, 2e-4)
    assert list(cfg.stages) == ["align sentences"] and cfg.eval_items <= 100
    assert default_out(cfg) == Path(f"runs/align-small-{folder.name}-s0")
    assert parse_args(flags_of(cfg, default_out(cfg)).split())[0] == cfg
    cfg, _ = parse_args(["--pretrained", str(base), "--data", str(folder), "--method", "prealign",
                         "--lr", "0.5"])
    assert list(cfg.stages) == ["align words", "pretrain"] and cfg.lr == 0.5


@pytest.mark.parametrize("flags, message", [
    (["--n_layer", "3"], "--n_layer does not go with --pretrained"),
    (["--preset", "small"], "--preset does not go with --pretrained"),
    (["--context_len", "97"], "--context_len 97: .* reads 96 tokens"),
    (["--method", "forget"], "forgetting resets"),
])
def test_options_that_do_not_go_with_a_checkpoint_are_refused(base, folder, flags, message):
    with pytest.raises(UserError, match=message):
        parse_args(["--pretrained", str(base), "--data", str(folder), *flags])


def test_a_checkpoint_needs_a_folder_that_was_prepared_with_its_tokenizer(base, folder, tmp_path, capsys):
    with pytest.raises(UserError, match="--pretrained needs --data"):
        parse_args(["--pretrained", str(base)])
    write(tmp_path / "own", source(), vocab_size=330, new_subwords=40)
    other = checkpoint(tmp_path / "other", sentence_piece())
    for start, data in ((base, tmp_path / "own"), (other, folder)):
        assert train.main(command(start, data, tmp_path / "run")) == 2
        assert "was not prepared with the tokenizer of" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_study_of_a_checkpoint_starts_every_system_from_it(base, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg, modes = parse_args(["--reproduce", "pretrained", "--pretrained", str(base), "--data", str(folder),
                             "--afp_steps", "3"])
    runs = [run for run in systems_of("pretrained", range(2), cfg, modes.given)]
    assert len(runs) == 2 * len(SYSTEMS["pretrained"]) and runs[0][0] == "base"
    assert {(system.pretrained, system.languages, system.steps, system.afp_steps) for _, system, _ in runs} == {
        (str(base), "en,de", 0, 3)}
    found = {name: system for name, system, _ in runs}
    assert found["AFP, middle level"].afp_mcl_layer == 1 and list(found["base"].stages) == []
    assert found["FT"].afp_mcl_weight == 0 and found["MIT"].afp_cross == 0 and found["AFP, adapters"].afp_lora == 16
    assert str(runs[0][2]) == f"runs/pretrained-small-{folder.name}-s0/base"


def test_a_model_of_ours_is_not_exported(folder, tmp_path, capsys):
    flags = ["--data", str(folder), "--languages", "en,de", "--n_layer", "1", "--n_head", "2", "--d_model", "16", "--steps",
             "4", *SHORT[:-4], "--transfer_steps", "0", "--out", str(tmp_path / "own")]
    assert train.main(flags) == 0
    assert train.main(["--export", str(tmp_path / "x"), "--out", str(tmp_path / "own")]) == 2
    assert "did not begin as a public checkpoint" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_adapters_start_with_noise_of_their_own_by_seed():
    def noise(seed):
        blocks = add_adapters(GPT(ModelConfig(30, 2, 2, 16, 8)).initialise(0), 3, seed).body
        return [m.down.detach() for m in blocks.modules() if isinstance(m, LowRank)]
    first, again, other = map(noise, (0, 0, 1))
    assert len(first) == 8 and all(map(torch.equal, first, again))
    rows = torch.cat([down[:, :16] * down.shape[1] ** 0.5 for down in first + other])        # of 16 adapters
    assert len(rows.unique(dim=0)) == 16 * 3                   # no two of them begin with the same numbers
    assert rows.std().item() == pytest.approx(1, abs=0.1)      # N(0, 1 / number of inputs)
