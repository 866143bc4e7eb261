"""Public checkpoints: logits of the reference implementation, the way back, and files that are refused.

tests/fixtures/llama and qwen2 were written once by transformers 5.24: random models of two layers with
grouped queries, a Llama in bfloat16 and a Qwen2 (biases, tied head) in float32, with their logits of the
last four tokens of two texts, computed in float32.  logits-llama3.json has those of the same Llama with the
rotary positions of Llama 3.
"""
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from data.files import UserError
from data.pretrained import export_pretrained, load_pretrained, open_weights
from model import GPT, ModelConfig, generate

FIXTURES = Path(__file__).parent / "fixtures"
CODES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}


def write_safetensors(path, tensors, padding=True, **changed):
    """Write a file by hand.  changed: entries of the header that are replaced, by name of the tensor."""
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, t in tensors.items():
        raw = t.contiguous().view(torch.uint8).numpy().tobytes()
        header[name] = dict(dtype=CODES[t.dtype], shape=[*t.shape],
                            data_offsets=[len(data), len(data) + len(raw)])
        header[name] |= changed.get(name, {})
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8) if padding else b" " * (1 - len(text) % 2)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def tensors_of(name):
    """The tensors of a fixture: {name: tensor}."""
    found = {}
    for key, (_, entry, data, start) in open_weights(FIXTURES / name).items():
        dtype = {code: dtype for dtype, code in CODES.items()}[entry["dtype"]]
        begin, end = entry["data_offsets"]
        found[key] = torch.from_numpy(np.frombuffer(data[start + begin:start + end], np.uint8).copy()).view(
            dtype).view(entry["shape"])
    return found


@pytest.fixture(params=["llama", "qwen2"])
def name(request):
    return request.param


@pytest.fixture
def folder(tmp_path):
    """A copy of the Llama."""
    return Path(shutil.copytree(FIXTURES / "llama", tmp_path / "llama"))


@pytest.fixture
def tokenizer():
    return dict(model=dict(vocab={"é": 0}))


def weights(model):
    return dict(model.named_parameters())


def change_config(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    for key, value in changes.items():
        if value is ...:
            del config[key]
        else:
            config[key] = value
    path.write_text(json.dumps(config), encoding="utf-8")


def refused(folder, pattern):
    """load_pretrained must refuse the folder with one line that matches."""
    with pytest.raises(UserError, match=pattern) as error:
        load_pretrained(folder)
    message = str(error.value)
    assert "\n" not in message and len(message) < 400 + len(str(folder))


# --- what is read -------------------------------------------------------------------------------------------

def test_the_logits_are_those_of_the_reference_implementation(name):
    model, config = load_pretrained(FIXTURES / name)
    expected = json.loads((FIXTURES / name / "logits.json").read_text(encoding="utf-8"))
    found = model.logits(torch.tensor(expected["tokens"]))[:, -4:]
    assert torch.allclose(found, torch.tensor(expected["logits"]), atol=1e-5)
    assert config["model_type"] == name and {p.dtype for p in model.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in model.parameters())


def test_the_sizes_are_those_of_the_config(name):
    config = load_pretrained(FIXTURES / name)[0].config
    assert config == ModelConfig(60, 2, 4, 32, 24, 2, 44, True, name == "qwen2", name == "qwen2",
                                 dict(llama=5e4, qwen2=1e6)[name], (), dict(llama=1e-5, qwen2=1e-6)[name])


def test_the_fixtures_hold_what_they_should():
    assert {t.dtype for t in tensors_of("llama").values()} == {torch.bfloat16}
    assert {t.dtype for t in tensors_of("qwen2").values()} == {torch.float32}
    assert "lm_head.weight" in tensors_of("llama") and "lm_head.weight" not in tensors_of("qwen2")
    assert sum(p.stat().st_size for p in FIXTURES.rglob("*") if p.is_file()) < 200_000


def test_a_model_that_was_read_learns_and_leaves_the_files_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    model, _ = load_pretrained(folder)
    optimizer = torch.optim.AdamW(model.param_groups(1e-2, 1e-2, 0.1))
    first = model.embed.weight.detach().clone()
    model.logits(torch.tensor([[1, 2, 3]])).logsumexp(-1).sum().backward()
    optimizer.step()
    assert not torch.equal(model.embed.weight, first) and (folder / "model.safetensors").read_bytes() == before
    assert len(generate(model, [[1, 2], [3]], 4, temperature=0)[0]) == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_is_read_as_float32(folder, dtype):
    tensors = {key: t.to(dtype) for key, t in tensors_of("llama").items()}
    write_safetensors(folder / "model.safetensors", tensors)
    model, _ = load_pretrained(folder)
    assert torch.equal(model.embed.weight, tensors["model.embed_tokens.weight"].float())
    assert torch.equal(model.body[1].feed_out.weight, tensors["model.layers.1.mlp.down_proj.weight"].float())
    assert torch.equal(model.head.weight, tensors["lm_head.weight"].float())


def test_numbers_may_begin_anywhere(folder):
    write_safetensors(folder / "model.safetensors", tensors_of("llama"), padding=False)
    n = int.from_bytes((folder / "model.safetensors").read_bytes()[:8], "little")
    assert n % 2 == 1
    same, model = load_pretrained(FIXTURES / "llama")[0], load_pretrained(folder)[0]
    assert all(torch.equal(p, weights(same)[key]) for key, p in weights(model).items())


def shard(folder, tensors):
    """Put the tensors into two files with an index, and remove the single one."""
    names = sorted(tensors)
    files = {key: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, key in enumerate(names)}
    for file in {*files.values()}:
        write_safetensors(folder / file, {key: tensors[key] for key in names if files[key] == file})
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=files)), encoding="utf-8")
    return files


def test_weights_in_several_files_are_those_in_one(folder):
    shard(folder, tensors_of("llama"))
    same, model = load_pretrained(FIXTURES / "llama")[0], load_pretrained(folder)[0]
    assert all(torch.equal(p, weights(same)[key]) for key, p in weights(model).items())


def test_the_older_names_of_keys_are_read(folder):
    change_config(folder, rope_parameters=..., dtype=..., head_dim=..., rope_theta=50000, rope_scaling=None,
                  torch_dtype="bfloat16", mlp_bias=None)
    assert load_pretrained(folder)[0].config == load_pretrained(FIXTURES / "llama")[0].config
    change_config(folder, rope_theta=..., num_key_value_heads=4)
    refused(folder, r'k_proj.weight is {.*"shape": \[16, 32\].*}, expected shape \[32, 32\]')


def test_a_context_may_be_shorter_and_is_bounded_by_the_checkpoint(folder):
    assert load_pretrained(folder, 7)[0].config.context_len == 7
    assert load_pretrained(folder, 99)[0].config.context_len == 24
    change_config(folder, max_position_embeddings=2**20)
    assert load_pretrained(folder)[0].config.context_len == 8192


def test_a_tied_head_that_is_stored_again_is_left_out(tmp_path):
    folder = shutil.copytree(FIXTURES / "qwen2", tmp_path / "qwen2")
    tensors = tensors_of("qwen2")
    write_safetensors(folder / "model.safetensors", tensors | {
        "lm_head.weight": tensors["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    model, _ = load_pretrained(folder)
    assert model.head.weight is model.embed.weight
    change_config(folder, use_sliding_window=False, sliding_window=32768)    # as Qwen2.5 has it: turned off
    load_pretrained(folder)


# --- what is written ----------------------------------------------------------------------------------------

def test_the_rotary_positions_of_llama_3_are_those_of_the_reference_implementation(folder, tokenizer):
    expected = json.loads((folder / "logits-llama3.json").read_text(encoding="utf-8"))
    plain, _ = load_pretrained(folder)
    change_config(folder, rope_parameters=expected["rope_parameters"])
    model, config = load_pretrained(folder)
    tokens, wanted = torch.tensor(expected["tokens"]), torch.tensor(expected["logits"])
    assert torch.allclose(model.logits(tokens)[:, -4:], wanted, atol=1e-5)
    assert not torch.allclose(plain.logits(tokens)[:, -4:], wanted, atol=0.1)
    for i, content in enumerate((config, None)):               # the scaling is exported with or without a config
        export_pretrained(model, folder.parent / f"out{i}", tokenizer, content)
        again, _ = load_pretrained(folder.parent / f"out{i}")
        assert again.config == model.config and torch.equal(again.cos, model.cos)


def test_what_is_exported_is_read_bit_for_bit(name, tmp_path, tokenizer):
    model, config = load_pretrained(FIXTURES / name)
    export_pretrained(model, tmp_path / "out", tokenizer, config)
    again, read = load_pretrained(tmp_path / "out")
    assert again.config == model.config and [*weights(again)] == [*weights(model)]
    assert all(torch.equal(p, weights(model)[key]) for key, p in weights(again).items())
    changed = {key for key in config.keys() | read.keys() if config.get(key) != read.get(key)}
    assert changed <= {"dtype", "torch_dtype", "rope_theta"}
    files = {p.name for p in (tmp_path / "out").iterdir()}
    assert files == {"config.json", "tokenizer.json", "model.safetensors"}
    tensors, found = tensors_of(name), open_weights(tmp_path / "out")
    assert {*tensors} == {*found} and all(entry["dtype"] == "F32" for _, entry, _, _ in found.values())


def test_a_context_that_was_read_shorter_is_exported_in_full(tmp_path, tokenizer):
    model, config = load_pretrained(FIXTURES / "llama", 7)
    export_pretrained(model, tmp_path / "out", tokenizer, config)
    assert load_pretrained(tmp_path / "out")[0].config.context_len == 24
    export_pretrained(model, tmp_path / "short", tokenizer)
    assert load_pretrained(tmp_path / "short")[0].config.context_len == 7


def test_a_model_of_ours_with_the_options_of_llama_can_be_exported(tmp_path, tokenizer):
    model = GPT(ModelConfig(50, 2, 4, 32, 16, gated=True)).initialise(0)
    export_pretrained(model, tmp_path / "out", tokenizer)
    again, tokens = load_pretrained(tmp_path / "out")[0], torch.arange(12).view(2, 6)
    assert torch.equal(again.logits(tokens), model.logits(tokens))


def test_an_export_does_not_overwrite_and_leaves_nothing_behind(tmp_path, tokenizer):
    model = load_pretrained(FIXTURES / "llama")[0]
    with pytest.raises(TypeError):                             # fails in the middle: this is no JSON
        export_pretrained(model, tmp_path / "out", dict(model={1}))
    assert not list(tmp_path.iterdir())
    with pytest.raises(AssertionError, match="gated"):
        export_pretrained(GPT(ModelConfig(50, 1, 4, 32, 16)), tmp_path / "out", tokenizer)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already"):
        export_pretrained(model, tmp_path / "out", tokenizer)


# --- what is refused ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("key, value", [
    ("model_type", "mistral"), ("model_type", None), ("model_type", ["llama"]), ("hidden_act", "gelu"),
    ("attention_bias", True), ("mlp_bias", True), ("sliding_window", 4096), ("use_sliding_window", True),
    ("rope_scaling", dict(rope_type="default", factor=8.0)), ("rope_scaling", dict(type="linear", factor=2.0)),
    ("rope_scaling", [1]), ("rope_parameters", dict(rope_type="yarn", rope_theta=1e4)), ("rope_interleaved", True),
    ("partial_rotary_factor", 0.5), ("quantization_config", dict(bits=4)), ("head_dim", 16),
    ("layer_types", ["full_attention", "sliding_attention"]), ("layer_types", 5), ("vocab_size", 0), ("vocab_size", ...),
    ("num_hidden_layers", 2**40), ("num_hidden_layers", True), ("hidden_size", 32.0), ("hidden_size", "32"),
    ("intermediate_size", -1), ("max_position_embeddings", None), ("rms_norm_eps", float("nan")),
    ("rms_norm_eps", ...), ("num_key_value_heads", [2])])
def test_what_a_gpt_cannot_represent_is_refused_by_the_name_of_the_key(folder, key, value):
    change_config(folder, **{key: value})
    refused(folder, key)


@pytest.mark.parametrize("changed, key", [
    (dict(factor=0), "factor"), (dict(low_freq_factor=None), "low_freq_factor"),
    (dict(high_freq_factor=0.1), "high_freq_factor"), (dict(original_max_position_embeddings=1.5), "original_max"),
    (dict(attention_factor=2.0), "rope_parameters")])
def test_rotary_positions_of_llama_3_need_their_four_numbers(folder, changed, key):
    expected = json.loads((folder / "logits-llama3.json").read_text(encoding="utf-8"))
    change_config(folder, rope_parameters=expected["rope_parameters"] | changed)
    refused(folder, key)


@pytest.mark.parametrize("key, value, pattern", [
    ("num_key_value_heads", 3, "n_kv_head 3"), ("num_attention_heads", 32, "head_dim|n_head"),
    ("num_hidden_layers", 3, "fewer layers"), ("num_hidden_layers", 1, r"also have model.layers.1"),
    ("num_hidden_layers", 10_000_000, "fewer layers"),
    ("vocab_size", 61, r"embed_tokens.weight is .*expected shape \[61, 32\]"),
    ("vocab_size", 2**23, "embed_tokens.weight is .*expected shape"),
    ("hidden_size", 2**23, "head_dim"), ("intermediate_size", 45, "proj.weight is .*expected shape"),
    ("tie_word_embeddings", None, None)])
def test_a_config_of_other_sizes_than_the_weights_is_refused(folder, key, value, pattern):
    change_config(folder, **{key: value})
    refused(folder, pattern) if pattern else load_pretrained(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b'{"a":' * 100_000, b"[" * 100_000])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors.index.json"])
def test_a_broken_json_file_is_refused(folder, file, content):
    if "index" in file:
        (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(content)
    refused(folder, f"{file} is damaged")


def headed(text, n=None):
    return (len(text) if n is None else n).to_bytes(8, "little") + text


@pytest.mark.parametrize("content", [
    b"", b"1234567", headed(b""), headed(b"{}", 2**60), headed(b"{}", 2**64 - 1), headed(b"{}", 3), headed(b"[]"),
    headed(b"null"), headed(b"{"), headed(b"[" * 100_000), headed(b'{"a":' * 100_000), headed(b"\xff" * 20),
    b"PK\x03\x04" + bytes(100), headed(b"7" * 10_000)])
def test_a_file_of_another_format_is_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    refused(folder, "model.safetensors is damaged or no safetensors file")


def test_an_endless_header_is_refused_unread(folder):
    with open(folder / "model.safetensors", "wb") as file:                  # sparse: takes no disk space
        file.write((2**31).to_bytes(8, "little"))
        file.truncate(2**32)
    refused(folder, "damaged or no safetensors file")


@pytest.mark.parametrize("keep", [4, 100, 2_000, 10_000, 39_295])
def test_a_truncated_file_is_refused(folder, keep):
    whole = (folder / "model.safetensors").read_bytes()
    assert keep < len(whole)
    (folder / "model.safetensors").write_bytes(whole[:keep])
    refused(folder, "is damaged")


NORM = "model.layers.0.input_layernorm.weight"


@pytest.mark.parametrize("changed", [
    dict(dtype="F8_E4M3"), dict(dtype=["F32"]), dict(dtype="F64"), dict(dtype=None),
    dict(shape=[31]), dict(shape=[]), dict(shape="32"), dict(shape=[[32] * 500]),
    dict(data_offsets=[0, 2**60]), dict(data_offsets=[-64, 0]), dict(data_offsets=[2**60, 2**60 + 64]),
    dict(data_offsets=[2**70, 2**70 + 64]), dict(data_offsets=[64, 0]), dict(data_offsets=[0, 62]),
    dict(data_offsets=[0.0, 64.0]), dict(data_offsets=[float("nan"), 64]), dict(data_offsets=["0", "64"]),
    dict(data_offsets=[0, 64, 64]), dict(data_offsets={"0": 64}), dict(data_offsets={"0": 0, "64": 64}),
    dict(data_offsets=None)])
def test_an_entry_that_does_not_describe_its_tensor_is_refused(folder, changed):
    write_safetensors(folder / "model.safetensors", tensors_of("llama"), **{NORM: changed})
    refused(folder, f"{NORM} is {{.*, expected shape \\[32\\] of F32, F16, BF16 within the file")


@pytest.mark.parametrize("entry", [None, 3, [], "text", {}])
def test_an_entry_that_is_no_description_at_all_is_refused(folder, entry):
    text = json.dumps({name: entry for name in tensors_of("llama")}).encode()
    (folder / "model.safetensors").write_bytes(headed(text) + bytes(64))
    refused(folder, "is damaged or does not fit config.json")


def test_missing_and_unknown_tensors_are_refused_by_name(folder):
    tensors = tensors_of("llama")
    write_safetensors(folder / "model.safetensors", {k: t for k, t in tensors.items() if "0.mlp.up" not in k})
    refused(folder, "lack model.layers.0.mlp.up_proj.weight")
    bias = {"model.layers.0.self_attn.o_proj.bias": torch.ones(32)}
    write_safetensors(folder / "model.safetensors", tensors | bias)
    refused(folder, "also have model.layers.0.self_attn.o_proj.bias")
    write_safetensors(folder / "model.safetensors", {})
    refused(folder, "fewer layers")


@pytest.mark.parametrize("places, pattern", [
    (None, "weight_map"), ([], "weight_map"), ({NORM: 3}, "weight_map"),
    ({NORM: "../other/model.safetensors"}, "weight_map"), ({NORM: ""}, "weight_map"),
    ({NORM: "absent.safetensors"}, "absent.safetensors is missing"), ({}, "fewer layers")])
def test_an_index_that_names_no_files_of_the_folder_is_refused(folder, places, pattern):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(dict(weight_map=places)), encoding="utf-8")
    refused(folder, pattern)


def test_a_shard_that_lacks_a_tensor_of_the_index_is_refused(folder):
    tensors = tensors_of("llama")
    files = shard(folder, tensors)
    there = {k: t for k, t in tensors.items() if files[k] == files[NORM] and k != NORM}
    write_safetensors(folder / files[NORM], there)
    refused(folder, f"lack {NORM}")


def test_an_empty_folder_is_refused(tmp_path):
    refused(tmp_path, "no config.json")
    refused(tmp_path / "absent", "no config.json")
    shutil.copy(FIXTURES / "llama" / "config.json", tmp_path)
    refused(tmp_path, "model.safetensors is missing")


def test_damage_at_random_places_costs_one_line_or_nothing(folder):
    """A changed byte of the header or of the config is refused, or changes nothing that matters here."""
    rng, outcomes = random.Random(0), []
    for file in ("config.json", "model.safetensors"):
        whole = (FIXTURES / "llama" / file).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            damaged[rng.randrange(min(len(whole), 2_000))] = rng.randrange(256)
            (folder / file).write_bytes(damaged)
            try:
                load_pretrained(folder)
                outcomes.append(True)
            except UserError as error:
                assert "\n" not in str(error)
                outcomes.append(False)
        (folder / file).write_bytes(whole)
    assert {*outcomes} == {True, False}
