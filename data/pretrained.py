"""Public checkpoints of the Llama family: a folder of three files, and a GPT with its weights.

  config.json        the sizes of the model, under the names that the transformers library gives them
  tokenizer.json     left to data/folder.py
  model.safetensors  the weights:
      8 bytes        the length n of the header, an unsigned integer, lowest byte first
      n bytes        the header, a JSON object {tensor: {"dtype": "BF16", "shape": [rows, columns],
                     "data_offsets": [begin, end]}}; "__metadata__" is no tensor
      the rest       the numbers, row by row; begin and end count bytes from here
  model.safetensors.index.json   where the weights are in several such files: {"weight_map": {tensor: file}}

Nothing in such a folder is run.  The files are mapped into memory, and each tensor is copied once, into its
place among the float32 weights of the GPT.  What GPT cannot compute is refused, with its key in config.json.
"""
import json
import math
import mmap
import os
from pathlib import Path

import torch

from data.files import UserError, named, read_json, refuse, whole_folder
from model import GPT, ModelConfig, rotary_table

DTYPES = dict(F32=torch.float32, F16=torch.float16, BF16=torch.bfloat16)
LONGEST = dict(header=2**24, context=8192)                     # bytes; tokens, unless more are asked for
SIZES = dict(vocab_size="vocab_size", n_layer="num_hidden_layers", n_head="num_attention_heads",
             d_model="hidden_size", context_len="max_position_embeddings", d_ff="intermediate_size")
ARCHITECTURES = dict(llama="LlamaForCausalLM", qwen2="Qwen2ForCausalLM")
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
# what else changes the computation, with the one value that a GPT represents; null and absent are the default
ONLY = dict(hidden_act="silu", attention_bias=False, mlp_bias=False, use_sliding_window=False,
            rope_interleaved=False, partial_rotary_factor=1.0, quantization_config=None)


# --- config.json --------------------------------------------------------------------------------------------

def read_config(folder, context_len=None):
    """The config.json of a public checkpoint: -> ModelConfig, the content of the file.

    context_len: the longest text in tokens; by default that of the checkpoint, but at most 8192
    """
    path = Path(folder) / "config.json"
    config = content = read_json(path, "download it again")
    refuse(config is None, f"{folder} holds no pretrained model (it has no config.json)")

    def check(fits, key, wanted):
        if not fits:
            value = json.dumps(config.get(key))
            raise UserError(f"{path}: {key} is {value:.60}; this program reads only {wanted}")

    def number(key, kind, default=None):
        value = default if config.get(key) is None else config[key]
        check(type(value) in (int, kind) and 0 < value < 2**24, key, "positive numbers below 2^24")
        return value

    kind = config.get("model_type")
    check(kind in [*ARCHITECTURES], "model_type", " and ".join(ARCHITECTURES))
    for key, only in ONLY.items():
        check(config.get(key) in (None, only), key, json.dumps(only))
    # qwen2 has use_sliding_window to turn it off
    check(kind != "llama" or config.get("sliding_window") is None, "sliding_window", "null")
    each = config.get("layer_types") or []
    check(isinstance(each, list) and {"full_attention"} >= {*map(str, each)}, "layer_types", "full_attention")
    for key in ("rope_scaling", "rope_parameters"):            # the older and the newer name
        rope = config.get(key) or {}
        rope_type = rope.get("rope_type", "default") if isinstance(rope, dict) else None
        known = {"rope_theta", "rope_type", *(LLAMA3 if rope_type == "llama3" else ())}
        check(rope_type in ("default", "llama3") and {*rope} <= known, key,
              "null and the types default and llama3")
        config = config | rope
    scaling = ()
    if config.get("rope_type") == "llama3":
        scaling = (*(float(number(key, float)) for key in LLAMA3[:3]), number(LLAMA3[3], int))
        check(scaling[1] < scaling[2], "high_freq_factor", "numbers above low_freq_factor")
    sizes = {name: number(key, int) for name, key in SIZES.items()}
    sizes["context_len"] = min(context_len or LONGEST["context"], sizes["context_len"])
    width = sizes["d_model"] // sizes["n_head"]
    check(number("head_dim", int, width) == width, "head_dim", "hidden_size / num_attention_heads")
    try:
        sizes = ModelConfig(
            **sizes, n_kv_head=number("num_key_value_heads", int, sizes["n_head"]), gated=True,
            attention_bias=kind == "qwen2", tied=config.get("tie_word_embeddings") is True,
            rope_base=float(number("rope_theta", float, 10_000.0)), rope_scaling=scaling,
            norm_eps=number("rms_norm_eps", float))
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    return sizes, content


def named_tensors(model):
    """The weights of a GPT under the names that they have in a file: -> {name: a view of a parameter}."""
    config, found = model.config, {"model.embed_tokens.weight": model.embed.weight}
    narrow = (config.n_kv_head or config.n_head) * (config.d_model // config.n_head)
    for i, block in enumerate(model.body):
        parts = {"input_layernorm.weight": block.attention_norm.weight,
                 "post_attention_layernorm.weight": block.feed_norm.weight,
                 "self_attn.o_proj.weight": block.attention_out.weight,
                 "mlp.down_proj.weight": block.feed_out.weight}
        for kind, p in block.query_key_value.named_parameters():                 # weight and perhaps bias
            rows = p.split((config.d_model, narrow, narrow))
            parts |= {f"self_attn.{x}_proj.{kind}": part for x, part in zip("qkv", rows)}
        rows = block.feed_in.weight.chunk(2)
        parts |= {f"mlp.{x}_proj.weight": part for x, part in zip(("gate", "up"), rows)}
        found |= {f"model.layers.{i}.{name}": part for name, part in parts.items()}
    found["model.norm.weight"] = model.final_norm.weight
    if not config.tied:
        found["lm_head.weight"] = model.head.weight
    return {name: part.detach() for name, part in found.items()}


# --- reading ------------------------------------------------------------------------------------------------

def open_safetensors(path):
    """Map a file into memory: -> {tensor: (path, entry in the header, mapped file, begin of the data)}."""
    refuse(not path.is_file(), f"{path} is missing: download the checkpoint again")
    with open(path, "rb") as file:
        n = int.from_bytes(file.read(8), "little")
        try:
            if not 0 < n <= min(LONGEST["header"], os.path.getsize(path) - 8):
                raise ValueError
            header = json.loads(file.read(n))
            header.pop("__metadata__", None)
        except (ValueError, AttributeError, TypeError, RecursionError):          # not JSON, or not an object
            raise UserError(f"{path} is damaged or no safetensors file: download it again") from None
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)              # private: nothing is written
    return {name: (path, entry, data, 8 + n) for name, entry in header.items()}


def open_weights(folder):
    """All tensors of a checkpoint in one file or in several, see open_safetensors."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists() or not index.exists():
        return open_safetensors(whole)
    places = (read_json(index, "download it again") or {}).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(f, str) and f == Path(f).name and f
                                               for f in places.values()):
        raise UserError(f"{index} is damaged (weight_map names no files): download it again")
    shards = {file: open_safetensors(folder / file) for file in sorted({*places.values()})}
    return {name: shards[file][name] for name, file in places.items() if name in shards[file]}


def stored_tensor(name, shape, path, entry, data, start):
    """One tensor of a mapped file, not yet read: -> a tensor of this shape and of the file's dtype."""
    try:
        (begin, end), n = entry["data_offsets"], math.prod(shape)
        dtype = DTYPES[entry["dtype"]]
        if entry["shape"] != [*shape] or begin < 0 or end - begin != n * dtype.itemsize:
            raise ValueError
        return torch.frombuffer(data, dtype=dtype, count=n, offset=start + begin).view(shape)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UserError(f"{path} is damaged or does not fit config.json: {name} is {json.dumps(entry):.120}, "
                        f"expected shape {[*shape]} of {', '.join(DTYPES)} within the file") from None


def load_pretrained(folder, context_len=None):
    """The model of a public checkpoint: -> (GPT, the content of its config.json).  See read_config."""
    folder = Path(folder)
    (sizes, config), stored = read_config(folder, context_len), open_weights(folder)
    if f"model.layers.{sizes.n_layer - 1}.input_layernorm.weight" not in stored:
        raise UserError(f"{folder}: the weights have fewer layers than config.json (num_hidden_layers)")
    with torch.device("meta"):                                 # shapes only, until the files are checked
        model = GPT(sizes)
    wanted = named_tensors(model)
    ignored = {"lm_head.weight"} if sizes.tied else set()      # some checkpoints store the embedding twice
    extra = {name for name in stored if not name.endswith("rotary_emb.inv_freq")} - {*wanted} - ignored
    for what, names in (("lack", {*wanted} - {*stored}), ("also have", extra)):
        if names:
            raise UserError(f"{folder}: the weights {what} {min(names):.80}, so this is another architecture")
    parts = {name: stored_tensor(name, part.shape, *stored[name]) for name, part in wanted.items()}
    model.to_empty(device="cpu")
    if sizes.tied:
        model.head.weight = model.embed.weight
    model.cos, model.sin = rotary_table(sizes.context_len, sizes.d_model // sizes.n_head, sizes.rope_base,
                                        sizes.rope_scaling)
    for name, part in named_tensors(model).items():
        part.copy_(parts[name])
    return model, config


# --- writing ------------------------------------------------------------------------------------------------

def export_pretrained(model, folder, tokenizer, config=None):
    """Write a model as a new folder that load_pretrained and transformers read, in float32.

    tokenizer: the content of tokenizer.json;  config: of the checkpoint that the model began as, whose other
    keys (such as the ids of special tokens) are kept
    """
    folder, sizes, config = Path(folder), model.config, config or {}
    refuse(folder.exists(), f"{folder} exists already: choose another folder")
    assert sizes.gated, "only models that began as a public checkpoint have a gated feed-forward network"
    kind, longest = "qwen2" if sizes.attention_bias else "llama", config.get("max_position_embeddings", 0)
    config = config | {key: getattr(sizes, name) for name, key in SIZES.items()} | dict(
        max_position_embeddings=max(longest, sizes.context_len),                 # it may be read in part
        intermediate_size=sizes.d_ff or 4 * sizes.d_model, model_type=kind,
        architectures=[ARCHITECTURES[kind]], hidden_act="silu",
        num_key_value_heads=sizes.n_kv_head or sizes.n_head, rope_theta=sizes.rope_base,
        rms_norm_eps=sizes.norm_eps, tie_word_embeddings=sizes.tied, torch_dtype="float32", dtype="float32")
    if sizes.rope_scaling:
        config["rope_scaling"] = dict(zip(LLAMA3, sizes.rope_scaling), rope_type="llama3")
    header, at, tensors = {"__metadata__": {"format": "pt"}}, 0, named_tensors(model)
    for name, part in tensors.items():
        size = part.numel() * 4
        header[name] = dict(dtype="F32", shape=[*part.shape], data_offsets=[at, at + size])
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)                            # the numbers begin at a multiple of 8
    with whole_folder(folder) as new:
        (new / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
        (new / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
        with named(folder / "model.safetensors"), open(new / "model.safetensors", "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for part in tensors.values():
                file.write(part.float().cpu().contiguous().numpy())
