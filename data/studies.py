"""What `--reproduce` runs for each paper: SYSTEMS, the runs by name, as flags of train.py."""

# adaptation tokens beside the default of 10,000: updates
AMOUNTS = {3_000: 100, 30_000: 200, 100_000: 300, 300_000: 300, 1_000_000: 600}
# Czech captions beside the default of all 12,000: 16 tokens each
CAPTIONS = {"": "", ", 4,000 captions": "--adapt_tokens 63670", ", 1,000 captions": "--adapt_tokens 15918"}


def forgetting_study():
    """BA and AFA side by side, and what each needs: {name: flags}, where {name} is the folder of that run."""
    systems = {
        "standard": "--method baseline --log_every 25",
        "forgetting": "--method forget --log_every 25",
        "longer": "--method forget --reset_until 0.75 --log_every 25",
        "weights only": "--method forget --no-reset_moments --no-reset_clock --eval_items 25",
        # as many rows in all, a quarter of them four times as often
        "gradual": "--method forget --reset_every 50 --reset_fraction 0.25 --eval_items 25",
        "prealign": "--method prealign",
        "prealign+forget": "--method prealign+forget",
    }
    systems = {name: flags + " --adapt_to none --transfer_steps 0" for name, flags in systems.items()}
    for name, base in (("BA", "standard"), ("AFA", "forgetting")):
        plain, tuned = " --instruct_steps 0", " --instruct_steps 100 --eval_items 100 --generate_items 25"
        quick, adapted = plain + " --eval_items 25", f"--from_run {{{base}}} --adapt_to "
        systems[name] = adapted + "clone2" + quick
        for tokens, steps in AMOUNTS.items():
            systems[f"{name}, {tokens:,} tokens"] = (
                adapted + f"clone2 --adapt_tokens {tokens} --adapt_steps {steps}" + quick)
        for language in ("shuffled-2", "shuffled-4", "reversed"):
            systems[f"{name}, {language}"] = adapted + language + quick
        systems[f"{name}, no replay"] = adapted + "clone2 --adapt_replay 0" + quick
        systems[f"{name}, whole head"] = adapted + "clone2 --adapt_rows head" + quick
        systems[f"tuned {name}"] = adapted + "clone2" + tuned
        systems[f"tuned {base}"] = adapted + "none" + tuned
        # as in Chen et al.: embeddings learned under the body as pretrained, then the body tuned in English
        systems[f"assembled {name}"] = (
            adapted + f"clone2 --adapt_rows all --adapt_replay 0{plain} --body_from {{tuned {base}}}")
    for base in ("longer", "weights only", "gradual", "prealign", "prealign+forget"):
        systems[f"{base}, adapted"] = f"--from_run {{{base}}} --adapt_to clone2" + quick
    return systems


def alignment_study():
    """AFP and what it is compared with, from the same pretrained models: {name: flags}, {name} as above."""
    five = "en,clone,clone2,shuffled-4,reversed"
    systems = {
        "joint": "--method baseline --generate_items 50",
        "prealign": "--method prealign --generate_items 50",
        "forgetting": "--method forget --generate_items 50",
        "larger": "--method baseline --d_model 256 --lr 0.002 --afp_lr 0.0015 --generate_items 50",
        "longer": "--method baseline --words 6000000 --steps 8000 --generate_items 50",
        "five languages": f"--method baseline --languages {five} --clone_share 0.3 --generate_items 25",
    }
    systems = {name: flags + " --adapt_to none --transfer_steps 0 --shots 0,5 --eval_items 100"
               for name, flags in systems.items()}
    few = "--mcl_weight 0 --translations 0 --afp_samples"
    after = {
        "AFP": "",
        # the plain text beside it alone (both weights 0 would leave out the stage)
        "text only": "--mcl_weight 1e-15 --cit_weight 0",
        "MCL only": "--cit_weight 0",
        "CIT only": "--mcl_weight 0",
        "FT": "--mcl_weight 0 --translations 1 --no-answer_only --afp_samples 2500",  # AFP's translations
        "CIT, 1,000 questions": f"{few} 1000",
        "MIT, 1,000 questions": f"{few} 1000 --cross 0",
        "MIT, 5,000 questions": f"{few} 5000 --cross 0",
        # as long with the words that PreAlign aligns early
        "words late": "--mcl_weight 0 --cit_weight 0 --word_weight 1",
        "AFP, words late": "--word_weight 1",
        "AFP, no text beside": "--afp_rows 0",
        "AFP, mean of level 1": "--mcl_pool mean",
        "AFP, maximum of level 1": "--mcl_pool max",
        "AFP, mean of level 2": "--mcl_layer 2 --mcl_pool mean",
        "AFP, one direction": "--no-mcl_both_ways",
        **{f"AFP, cross {p}": f"--cross {p}" for p in (0, 0.25, 0.75, 1)},
        **{f"AFP, level {level}": f"--mcl_layer {level}" for level in (0, 2, 4)},
        **{f"AFP, {n} samples": f"--afp_samples {n}" for n in (50, 500)},
    }
    for name, flags in after.items():
        systems[name] = f"--from_run {{joint}} --method align {flags}"
    # does more of the same text, or a larger model, bring a claim back?
    beside = ("CIT only", "FT", "CIT, 1,000 questions", "MIT, 1,000 questions")
    for base, names in (("longer", ("AFP", "text only", *beside)), ("larger", ("AFP", "text only"))):
        for name in names:
            systems[f"{base}, {name}"] = f"--from_run {{{base}}} --method align {after[name]}"
    for base, method, both in (("prealign", "prealign+align", "prealign+align"),
                               ("forgetting", "forget+align", "forget+align"),
                               # twice the share of pretraining, as with two languages
                               ("five languages", "align --leave_out clone2,reversed --afp_clone_share 0.6",
                                "five languages, AFP")):
        systems[both] = f"--from_run {{{base}}} --method {method}"
        systems[f"{base}, text only"] = f"--from_run {{{base}}} --method {method} {after['text only']}"
    return systems


def real_study():
    """The three methods on a folder of real text, {data}: English and German captions, Czech for later."""
    joint, prealign, languages = "--method baseline", "--method prealign", " --languages en,de --adapt_to none"
    systems = {
        "joint": f"{joint} --data {{data}}{languages} --generate_items 50",
        "prealign": f"{prealign} --data {{data}}{languages}",
        "forgetting": f"--method forget --data {{data}}{languages} --transfer_steps 0",
    }
    for name, method in (("joint", joint), ("prealign", prealign)):
        # a control: what is left without any spelling in common
        systems[f"{name}, disjoint"] = (
            f"{method} --data {{data}}-disjoint{languages} --transfer_steps 0 --steps 2000")
    for name, base in (("BA", "joint"), ("AFA", "forgetting")):
        for captions, amount in CAPTIONS.items():
            systems[name + captions] = (f"--from_run {{{base}}} --adapt_to cs {amount} --generate_items 0 "
                                        "--transfer_steps 0 --eval_items 100")
    after = " --method align --transfer_steps 0"
    systems["AFP"] = "--from_run {joint}" + after
    systems["FT"] = f"--from_run {{joint}}{after} --mcl_weight 0 --translations 1 --no-answer_only"
    return systems


PUBLISHED = "--method prealign --keep_aligned 0 --align_weight 0.5 --code_switch 0.05"
SYSTEMS = {
    "prealign": {
        # for joint, the coverage only says which words count as unseen
        "joint": "--method baseline --dictionary_coverage 0.75",
        "prealign": "--method prealign",
        "published": PUBLISHED,
        "init only": PUBLISHED + " --code_switch 0 --transfer_steps 0",
        "switching only": PUBLISHED + " --align_steps 0 --transfer_steps 0",
        "vanilla": PUBLISHED + " --vanilla --transfer_steps 0",
        "shuffled": "--method prealign --dictionary shuffled --transfer_steps 0",
        "dictionary 75 %": "--method prealign --dictionary_coverage 0.75 --transfer_steps 0",
        # and with as much clone text as English text, which --reproduce adds
        "skyline": "--method baseline --transfer_steps 0",
    },
    "forget": forgetting_study(),
    "align": alignment_study(),
    "real": real_study(),
}
