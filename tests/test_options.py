"""The command line: values, names, suggestions, and one clear line for every mistake."""
import json
from dataclasses import asdict, fields, replace

import pytest

import train
from data.files import UserError
from data.lab import options
from data.lab.options import (COMMON, GROUPS, MANY, NEUTRAL, PRESETS, Config, data_name, default_out, flags_of,
                              load_config, parse_args)
from data.lab.run import Run
from test_train import SMALL, flags


def parsed(line):
    return parse_args(line.split())[0]


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("train.py: ") and "Traceback" not in error
    return error


def write_config(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


# --- values -------------------------------------------------------------------------------------------------

def test_a_study_runs_on_so_many_seeds_from_the_first_one_on():
    def seeds(flags):
        return list(parse_args(f"--reproduce prealign {flags}".split())[1].seeds)
    assert seeds("") == [0, 1, 2, 3, 4] and seeds("--seeds 2") == [0, 1]
    assert seeds("--seed 3") == [3] and seeds("--seed 5 --seeds 3") == [5, 6, 7]


def test_flags_override_the_preset_and_the_preset_overrides_defaults():
    small = parsed("--preset small --steps 7 --method forget")
    assert (small.steps, small.batch_size, small.lr, small.reset_every) == (7, 64, 1e-3, 500)
    assert small.weight_decay == 0.1
    for name, values in PRESETS.items():
        cfg = parsed(f"--preset {name}")
        assert asdict(cfg) == asdict(Config()) | values | dict(preset=name)


def test_the_preset_is_tiny_on_every_device(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert parsed("").preset == parsed("--device cpu").preset == parsed("--device cuda").preset == "tiny"


@pytest.mark.parametrize("preset", ["150m", "400m", "1.3b"])
def test_presets_of_the_paper_are_the_method_as_published(preset):
    cfg = parsed(f"--preset {preset} --method prealign")
    assert (cfg.prealign_every, cfg.prealign_weight, cfg.code_switch, cfg.embed_lr) == (0, 0.5, 0.05, 1.0)


def test_what_is_derived_from_options():
    cfg = Config(method="prealign+align", prealign_steps=30, prealign_rows=4, batch_size=8, steps=100)
    assert cfg.pretrain_steps == 100 - 30 * 4 // 8 and cfg.methods == {"prealign", "align"}
    assert replace(cfg, method="align").pretrain_steps == 100
    assert cfg.written_items == 50
    assert Config().written_items == 0 and replace(cfg, generate_items=3).written_items == 3
    assert Config(method="forget").new_language == "clone2" and Config().new_language == ""
    assert Config(method="forget", adapt_to="none").new_language == ""
    assert Config(method="forget", data="folder", languages="en,de").new_language == ""


@pytest.mark.parametrize("changes, stages", [
    (dict(), dict(pretrain=2000)),
    (dict(method="prealign"), {"align words": 300, "pretrain": 1850}),
    (dict(method="prealign", prealign_steps=0), dict(pretrain=2000)),
    (dict(method="forget"), dict(pretrain=2000, adapt=100, instruct=100)),
    (dict(method="forget", instruct_steps=0), dict(pretrain=2000, adapt=100)),
    (dict(adapt_to="clone2", instruct_steps=7), dict(pretrain=2000, adapt=100, instruct=7)),
    (dict(adapt_to="cs", data="folder", languages="en,de"), dict(pretrain=2000, adapt=100)),
    (dict(method="align"), {"pretrain": 2000, "align sentences": 500}),
    (dict(method="align", afp_mcl_weight=0.0, afp_cit_weight=0.0), dict(pretrain=2000)),
    (dict(method="align", afp_mcl_weight=0.0, afp_cit_weight=0.0, afp_word_weight=1.0, afp_steps=5),
     {"pretrain": 2000, "align sentences": 5}),
    (dict(method="prealign+forget+align"),
     {"align words": 300, "pretrain": 1850, "adapt": 100, "align sentences": 500, "instruct": 100}),
    (dict(method="prealign", from_run="base"), {}),
    (dict(method="prealign+align", from_run="base", adapt_to="clone2"),
     {"adapt": 100, "align sentences": 500, "instruct": 100}),
])
def test_stages_of_a_run_in_their_order(changes, stages):
    assert list(Config(**changes).stages.items()) == list(stages.items())


def test_a_prepared_folder_sets_languages_shares_and_steps(corpus, tmp_path):
    """The folder of the world stands for any other."""
    tokens = [corpus.meta["tokens"][f"{name}.train"] for name in corpus.languages]
    cfg = parsed(f"--data {corpus.folder} --method prealign --context_len 16")
    assert cfg.languages == ",".join(corpus.languages) and cfg.vocab_size == corpus.base_vocab
    assert cfg.clone_share == round(1 - tokens[0] / sum(tokens), 3)
    assert cfg.steps == min(max(round(5 * sum(tokens) / (8 * 16)), 1000), 4000)
    assert (cfg.eval_items, cfg.adapt_steps, cfg.adapt_to) == (1000, 300, "")
    assert parsed(f"--data {corpus.folder} --method forget").adapt_to == "none"  # it has no new language
    assert parsed(f"--data {corpus.folder} --context_len 128 --batch_size 4096").steps == 1000
    assert parsed(f"--data {corpus.folder} --context_len 8 --batch_size 1").steps == 4000
    assert parsed(f"--data {corpus.folder} --context_len 8 --batch_size 1 --preset small").steps == 5000
    two = parsed(f"--data {corpus.folder} --languages en,reversed --steps 7 --prealign_weight 0.25")
    assert two.languages == "en,reversed" and two.steps == 7 and two.prealign_weight == 0.25
    assert parsed(flags_of(two, tmp_path)) == two


def test_a_new_language_of_a_folder_and_all_of_its_text_are_the_default_of_forget(corpus, monkeypatch):
    meta = dict(corpus.meta, new=["xx", "yy"])
    meta["tokens"] = meta["tokens"] | {"xx.train": 5000, "yy.train": 700}
    monkeypatch.setattr(options, "read_meta", lambda folder: meta)
    cfg = parsed(f"--data {corpus.folder} --method forget")
    assert (cfg.adapt_to, cfg.adapt_tokens, cfg.new_language) == ("xx", 5000, "xx")
    cfg = parsed(f"--data {corpus.folder} --adapt_to yy")
    assert (cfg.adapt_to, cfg.adapt_tokens) == ("yy", 1000)
    assert parsed(f"--data {corpus.folder}").adapt_to == ""


def test_a_run_to_start_from_gives_its_options(tmp_path):
    base = write_config(tmp_path / "base", method="prealign", seed=3, lr=0.5, words=9999, data_used="x")
    cfg = parsed(f"--from_run {base} --method prealign+align --afp_steps 9")
    assert cfg == Config(method="prealign+align", seed=3, lr=0.5, words=9999, afp_steps=9, from_run=str(base))
    assert parsed(flags_of(cfg, tmp_path)) == cfg
    assert parsed(f"--from_run {base} --seed 3 --words 9999 --adapt_to clone2").new_language == "clone2"


def test_the_printed_flags_give_the_same_configuration(tmp_path):
    for changes in (dict(), dict(method="prealign+forget", preset="small"), dict(afp_mcl_symmetric=False),
                    SMALL | dict(method="prealign", languages="en,clone,reversed", code_switch_vanilla=True)):
        cfg = Config(**changes)
        again, modes = parse_args(flags_of(cfg, tmp_path).split())
        assert again == cfg and modes.out == str(tmp_path)
        assert "--out" not in flags_of(cfg, default_out(cfg))


def test_names_of_run_folders():
    assert str(default_out(Config())) == "runs/baseline-tiny-synthetic-s0"
    assert str(default_out(Config(method="forget", adapt_to="reversed", text="x/mine.txt", seed=2))) == (
        "runs/forget-to-reversed-tiny-mine-s2")
    assert data_name(Config(data="data/multi30k/")) == "multi30k"


def test_help_shows_the_common_options_on_one_screen(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        train.main(["--help"])
    assert stop.value.code in (0, None)
    text = capsys.readouterr().out
    assert all(f"\n  --{name} " in text for name in COMMON) and "--reset_every" not in text
    assert text.count("\n") <= 66 and "--help all shows the other options" in text
    assert "usage: python train.py --method METHOD [options]" in text


def test_help_shows_every_flag_in_its_group_once(capsys):
    with pytest.raises(SystemExit) as stop:
        train.main(["--help", "all"])
    assert stop.value.code in (0, None)
    text = capsys.readouterr().out
    groups = ["experiment:", "data:", "model:", "training:", "PreAlign:", "active forgetting:",
              "new language:", "AFP:", "evaluation:", "machine:"]
    places = [text.index(f"\n{group}\n") for group in groups]
    assert places == sorted(places)
    for f in fields(Config):
        assert text.count(f"\n  --{f.name}") >= 1 and f.metadata["help"].split()[0] in text, f.name
    for group, flag in (("PreAlign:", "prealign_every"), ("AFP:", "afp_cross"), ("machine:", "compile")):
        start = text.index(f"\n{group}\n")
        end = min([place for place in places if place > start], default=len(text))
        assert start < text.index(f"\n  --{flag}") < end


def test_names_of_options_say_whose_they_are():
    assert all(name.startswith("afp_") for name in GROUPS["AFP"])
    assert all(name.startswith("reset_") for name in GROUPS["active forgetting"])
    assert all(name.startswith(("prealign_", "code_switch", "dictionary")) for name in GROUPS["PreAlign"])
    assert sum(GROUPS.values(), []) == [f.name for f in fields(Config)]


# --- config.json --------------------------------------------------------------------------------------------

def test_a_config_that_lacks_a_newer_option_has_its_default(tmp_path):
    older = {k: v for k, v in asdict(Config(lr=0.5)).items() if k not in ("embed_decay", "reset_optimizer")}
    assert load_config(write_config(tmp_path, **older, data_used="x", dtype_used="float32")) == Config(lr=0.5)


@pytest.mark.parametrize("content, words", [
    (dict(align_steps=3), "unexpected keyword argument 'align_steps'"),
    (dict(lr="fast"), "config.json cannot be used: --lr 'fast' is not of type float"),
    (dict(lr=-1.0), "config.json cannot be used: --lr -1.0 is out of range"),
])
def test_a_config_that_cannot_be_used_is_named(tmp_path, content, words):
    write_config(tmp_path, **content)
    for line in (f"--from_run {tmp_path}", f"--eval_only --out {tmp_path}"):
        with pytest.raises(UserError) as error:
            parsed(line)
        assert words in str(error.value) and str(tmp_path) in str(error.value)


def run_with(cache, out, **changes):
    return Run(Config(**(SMALL | dict(method="baseline") | changes)), out, cache, quiet=True)


def test_neutral_options_do_not_make_another_configuration(cache, tmp_path):
    run_with(cache, tmp_path / "a").enter()
    other = dict(log_every=50, accumulate=2, device="auto", eval_items=7, shots="0,3", generate_items=2,
                 transfer_steps=1, compile=True, log_items=3)
    assert set(other) == set(NEUTRAL)
    run_with(cache, tmp_path / "a", **other).enter()                             # raises for another one
    assert load_config(tmp_path / "a").log_every == 50
    for changes in (dict(lr=0.1), dict(seed=1), dict(batch_size=2), dict(dtype="bfloat16"), dict(text="x")):
        with pytest.raises(UserError, match=f"another configuration .*{next(iter(changes))} "):
            run = run_with(cache, tmp_path / "a")
            run.cfg = replace(run.cfg, **changes)
            run.enter()


def test_a_folder_without_a_newer_option_is_the_same_run_if_the_option_has_its_default(cache, tmp_path):
    run = run_with(cache, tmp_path / "a")
    run.enter()
    older = {k: v for k, v in run.read("config.json").items() if k != "reset_blend"}
    write_config(tmp_path / "a", **older)
    run_with(cache, tmp_path / "a").enter()
    write_config(tmp_path / "a", **older)
    with pytest.raises(UserError, match="reset_blend 1.0 there, 0.5 here"):
        run_with(cache, tmp_path / "a", reset_blend=0.5).enter()


def test_a_slash_at_the_end_of_a_folder_changes_nothing(corpus, tmp_path):
    base = write_config(tmp_path / "base", method="baseline")
    for flag, folder in (("--data", corpus.folder), ("--from_run", base)):
        more = ["--method", "align"] if flag == "--from_run" else []
        assert parse_args([flag, f"{folder}/", *more])[0] == parse_args([flag, str(folder), *more])[0]


def test_a_finished_run_says_with_which_options_it_was_evaluated(cache, tmp_path):
    run_with(cache, tmp_path / "a").enter()
    assert run_with(cache, tmp_path / "a", log_every=3).hint() == ""
    assert run_with(cache, tmp_path / "a", shots="0,5", eval_items=7).hint() == (
        "\nshown with eval_items 6, shots 0: add --eval_only to measure again")


def test_other_data_is_another_configuration(cache, tmp_path):
    run = run_with(cache, tmp_path / "a")
    run.enter()
    write_config(tmp_path / "a", **run.read("config.json") | dict(data_used="00000000"))
    (tmp_path / "a" / "last.pt").write_bytes(b"not read")
    for load_only in (False, True):
        with pytest.raises(UserError, match="data_used 00000000 there"):
            run_with(cache, tmp_path / "a").enter(load_only)


def test_sample_and_eval_only_take_the_options_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trained = Config(method="prealign", steps=123, prealign_steps=9, seed=5, eval_items=9)
    write_config(tmp_path / "a", **asdict(trained))
    assert parse_args(["--sample", "x", "--out", "a"])[0] == trained
    assert parse_args(["--sample", "", "--out", "a"])[0] == trained              # an empty text is a text
    assert parsed("--eval_only --out a --eval_items 30 --log_every 7") == replace(
        trained, eval_items=30, log_every=7)
    assert parsed("--eval_only --out a --method prealign --steps 123") == trained
    assert parsed("--sample x --out a --steps 500") == replace(trained, steps=500)  # Run compares it later
    assert parsed("--out a --steps 500").steps == 500                            # training compares later
    write_config(default_out(trained), **asdict(trained))                        # found by its default name
    assert parsed("--sample x --method prealign --seed 5").steps == 123


def test_sample_needs_nothing_but_the_folder(cache, tmp_path, capsys):
    command = flags(cache, tmp_path / "a", steps=6, prealign_steps=2)
    assert train.main(command) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    capsys.readouterr()
    assert train.main(["--sample", "Anna was", "--out", str(tmp_path / "a"), "--cache", str(cache)]) == 0
    shown = capsys.readouterr().out
    assert "Anna was" in shown and "clone: ⟨" in shown
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert train.main(["--eval_only", "--out", str(tmp_path / "a"), "--cache", str(cache)]) == 0
    assert train.main([*command, "--sample", "x", "--lr", "9"]) == 2
    assert "lr 0.003 there, 9.0 here" in capsys.readouterr().err
    for part in (["--log_every", "50"], ["--accumulate", "2"], ["--eval_items", "9"], ["--device", "auto"]):
        assert train.main([*command, *part]) == 0                                # the finished run is shown
    assert train.main([*command, "--lr", "0.1"]) == 2
    error = capsys.readouterr().err
    assert "lr 0.003 there, 0.1 here" in error and "--fresh" in error


def test_a_late_alignment_of_words_chooses_its_dictionary_unless_pretraining_had_one(tmp_path):
    late = "--afp_word_weight 1 --dictionary shuffled --dictionary_coverage 0.5 --prealign_words 64"
    write_config(tmp_path / "base", **SMALL)
    cfg = parsed(f"--from_run {tmp_path / 'base'} --method align {late}")
    assert (cfg.dictionary, cfg.dictionary_coverage, cfg.prealign_words) == ("shuffled", 0.5, 64)
    write_config(tmp_path / "prealign", **SMALL | dict(method="prealign"))
    with pytest.raises(UserError, match="--prealign_words 64: --from_run takes"):
        parsed(f"--from_run {tmp_path / 'prealign'} --method prealign+align {late}")


# --- mistakes -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong, part", [
    ("--metod prealign", "unknown argument --metod: did you mean --method?"),
    ("--meth prealign", "unknown argument --meth (--help"),
    ("--batch-size 4", "did you mean --batch_size?"),
    ("--batchsize=4", "unknown argument --batchsize: did you mean --batch_size?"),
    ("--no-complie", "did you mean --no-compile?"),
    ("--prealing_steps 4", "did you mean --prealign_steps?"),
    ("-x", "unknown argument -x (--help"),
    ("--method PreAlign", "did you mean prealign?"),
    ("--method magic", "--method: invalid choice: 'magic' (choose from baseline, prealign"),
    ("prealign", "argument prealign: use --method prealign"),
    ("PreAlign+Forget", "use --method prealign+forget"),
    ("something", "unknown argument something"),
    ("--reproduce everything", "invalid choice: 'everything'"),
    ("--adapt_to clone2 --body_from x --adapt_body whole", "--body_from does not go with --adapt_body"),
    ("--code_switch 1.5", "--code_switch 1.5 is out of range: 0 to 1"),
    ("--lr 0", "--lr 0.0 is out of range"),
    ("--lr nan", "--lr nan is out of range"),
    ("--steps ten", "--steps: invalid int value: 'ten'"),
    ("--reproduce prealign --seeds 0", "--seeds 0 is out of range"),
    ("--seeds 4", "--seeds goes with --reproduce"),
    ("--reproduce prealign --out x", "--reproduce trains into runs/: give no --out"),
    ("--reproduce prealign --seed -4 --seeds 2", "--seed -4 is out of range"),
    ("--eval_only --fresh --out x", "--fresh and --eval_only do not go together"),
    ("--report a --sample x", "--sample and --report do not go together"),
    ("--languages en,klingon", "language 'klingon' is unknown"),
    ("--languages en", "at least one other"), ("--languages en,", "at least one other"),
    ("--languages en,clone,clone", "each once"),
    ("--languages clone,en", "en first"),
    ("--languages en,shuffled-1", "language 'shuffled-1' is unknown"),
    ("--adapt_to klingon", "language 'klingon' is unknown"),
    ("--adapt_to clone", "--adapt_to clone: a language of pretraining"),
    ("--adapt_init subwords", "--adapt_init subwords needs --data"),
    ("--adapt_to clone2 --adapt_replay 0.9", "--adapt_replay 0.9 is out of range: 0 to 0.7"),
    ("--body_from x", "--body_from needs a new language: add --adapt_to"),
    ("--afp_mcl_layer 5", "--afp_mcl_layer 5: the model has --n_layer 4 blocks"),
    ("--method align --afp_lora 8 --afp_mcl_layer 0", "--afp_mcl_layer 0: with --afp_lora the embedding does not"),
    ("--afp_leave_out clone", "--afp_leave_out clone: leave out some of clone, not all"),
    ("--afp_leave_out xx", "--afp_leave_out xx: leave out some of clone, not all"),
    ("--n_head 3", "--n_head 3"),
    ("--prealign_every 2 --prealign_from 0.6 --prealign_until 0.5", "--prealign_from 0.6 is not below --prealign_until 0.5"),
    ("--shots a", "--shots a: numbers separated by commas"),
    ("--shots 0,51", "--shots 0,51: numbers separated by commas, up to 50"),
    ("--method prealign --steps 10", "leaves nothing to pretrain on"),
    ("--from_run no/such/run", "no/such/run/config.json is missing"),
    ("--from_run base --method forget", "trained with --method baseline: only +align can be added"),
    ("--from_run base --languages en,clone2", "which has --languages en,clone"),
    ("--from_run base --method align --preset small", "which has --preset tiny"),
    ("--data no/such/folder", "no/such/folder is not a prepared folder"),
    ("--data folder --vocab_size 300", "--vocab_size does not go with --data"),
    ("--data folder --languages en,de", "--languages en,de: folder has en,clone"),
    ("--text no/such/file.txt", "no/such/file.txt cannot be read"),
    ("--report no/such/run", "summary.json is missing"),
    ("--sample x --out none", "none holds no run: train first with python train.py --method baseline"),
    ("--eval_only --method prealign", "train first with python train.py --method prealign"),
    ("--sample x --out base", "base holds no checkpoint: train first with python train.py --method baseline"),
    ("--from_run trained", "--from_run leaves nothing to do: add --method align, --adapt_to"),
])
def test_a_mistake_costs_one_line_and_exit_code_two(
        cache, corpus, tmp_path, monkeypatch, capsys, wrong, part):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "base", **SMALL)
    write_config(tmp_path / "trained", **SMALL)
    (tmp_path / "folder").symlink_to(corpus.folder)
    before = sorted(tmp_path.iterdir())
    assert train.main([*wrong.split(), "--cache", str(cache)]) == 2
    assert part in one_line(capsys)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("flag", ["--list", "--tau", "--learning_rate", "--pretrain_steps", "--", "-"])
def test_nothing_is_suggested_that_is_not_similar(flag, capsys):
    assert train.main([flag, "1"]) == 2
    assert "did you mean" not in one_line(capsys)


def test_every_option_has_limits_or_choices_that_its_default_keeps():
    for f in fields(Config):
        limits = f.metadata["low"] is not None and f.metadata["high"] is not None
        assert f.type in (bool, str) or limits, f.name
        assert len(f.metadata["help"]) < 140 and f.metadata["help"][-1] != ".", f.name
    assert Config(steps=MANY).steps == MANY
