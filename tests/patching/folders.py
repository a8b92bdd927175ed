"""Folders as people have them: each makes one around a tiny model, and says what can be loaded from it."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.models import fresh, outputs_of

__all__ = ["KINDS", "Kind"]

Load = Callable[[Path], Any]
SAFE, PICKLE = "model.safetensors", "pytorch_model.bin"
HEAD = {"weight": torch.arange(64.0).reshape(2, 32), "bias": torch.ones(2)}
WRITTEN = "written by the one who made this folder"
CODE = """
from transformers import BertForMaskedLM


class Doubled(BertForMaskedLM):
    def forward(self, *args, **kwargs):
        out = super().forward(*args, **kwargs)
        out.logits = 2 * out.logits
        return out
"""


def _model(folder: Path) -> Any:
    """What stock transformers makes of the folder, with whatever it puts on."""
    loaded, info = transformers.AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "mismatched_keys")), info
    return outputs_of(loaded.double().eval())


def _coded(folder: Path) -> Any:
    """The same by the code that lies in the folder."""
    loaded = transformers.AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    assert type(loaded).__name__ == "Doubled"
    return outputs_of(loaded.double().eval())


def at(name: str) -> Load:
    """A file of tensors."""
    return lambda folder: (
        load_file(folder / name) if name.endswith(".safetensors") else torch.load(folder / name, weights_only=True)
    )


def within(name: str) -> Load:
    """A module's own model."""
    return lambda folder: outputs_of(transformers.AutoModelForMaskedLM.from_pretrained(folder / name).double().eval())


def text(name: str) -> Load:
    """A file as it is."""
    return lambda folder: (folder / name).read_bytes()


@dataclass(frozen=True)
class Kind:
    """A kind of folder.

    Attributes:
        make: changes a folder that holds config.json and model.safetensors.
        loads: what else can be loaded from it, before and after.
        left: files that hold the unpatched weights, or go with these.
        model: loads the model.
    """

    make: Callable[[Path], None]
    loads: tuple[Load, ...] = ()
    left: tuple[str, ...] = ()
    model: Load = _model


def _put(folder: Path, name: str, content: Any) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, (str, bytes)):
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    elif name.endswith(".safetensors"):
        save_file(content, path, {"format": "pt"})
    else:
        torch.save(content, path)


def _state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / SAFE)


def _half(folder: Path) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in _state(folder).items()}


def _flipped(folder: Path) -> dict[str, torch.Tensor]:
    """Another model of the same shapes."""
    return {name: value.flip(0).contiguous() for name, value in _state(folder).items()}


def _shard(folder: Path, ending: str = "safetensors") -> None:
    state = _state(folder)
    (folder / SAFE).unlink()
    stem = "model" if ending == "safetensors" else "pytorch_model"
    names = sorted(state)
    weight_map = {name: f"{stem}-{1 + number % 2:05}-of-00002.{ending}" for number, name in enumerate(names)}
    for file in sorted(set(weight_map.values())):
        _put(folder, file, {name: state[name] for name in names if weight_map[name] == file})
    index = {"metadata": {"total_size": "unknown"}, "weight_map": weight_map}
    _put(folder, f"{stem}.{ending}.index.json", json.dumps(index))


def _to_pickle(folder: Path) -> None:
    _put(folder, PICKLE, _state(folder))
    (folder / SAFE).unlink()


def _fp16_beside_pickle(folder: Path) -> None:
    _put(folder, "model.fp16.safetensors", _half(folder))
    _to_pickle(folder)


def _formats(folder: Path) -> None:
    _put(folder, PICKLE, _state(folder))
    _put(folder, "model.fp16.safetensors", _half(folder))
    _put(folder, "original/consolidated.00.pth", {f"w{n}": v for n, v in enumerate(_state(folder).values())})
    for name in ("tf_model.h5", "flax_model.msgpack", "onnx/model.onnx", "model.gguf", "rust_model.ot"):
        _put(folder, name, WRITTEN)
    _put(folder, "openvino/openvino_model.xml", WRITTEN)
    _put(folder, "openvino/openvino_model.bin", WRITTEN)
    _put(folder, "onnx/config.json", "{}")


def _trainer(folder: Path) -> None:
    for name in ("scheduler.pt", "rng_state.pth", "rng_state_0.pth", "scaler.pt"):
        _put(folder, name, {"step": 3})
    _put(folder, "training_args.bin", {"lr": 1e-3})
    _put(folder, "trainer_state.json", "{}")
    _put(folder, "optimizer.pt", {"state": {0: {"exp_avg": torch.zeros(9)}}})
    shutil.copytree(folder, folder / "checkpoint-7", ignore=shutil.ignore_patterns("checkpoint-*"))


def _deepspeed(folder: Path) -> None:
    _put(folder, "global_step500/mp_rank_00_model_states.pt", {"module": _state(folder)})
    _put(folder, "pytorch_model_fsdp_0/__0_0.distcp", b"x" * 5000)
    _put(folder, "latest", "global_step500")
    _put(folder, "zero_to_fp32.py", "# consolidates global_step*\n")
    for name in ("scheduler.pt", "rng_state_0.pth"):
        _put(folder, name, {})


def _heads(folder: Path) -> None:
    _put(folder, "colbert_linear.pt", HEAD)
    _put(folder, "sparse_linear.pt", {"weight": HEAD["weight"][:1]})
    _put(folder, "value_head.safetensors", {"v_head.summary.weight": HEAD["weight"]})
    _put(folder, "pytorch_model_head.bin", {"heads.default.1.weight": HEAD["weight"]})
    _put(folder, "model_head.pkl", pickle.dumps({"coef": [1, 2, 3]}))


def _sentence_transformers(folder: Path) -> None:
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Dense": "Dense", "3_LayerNorm": "LayerNorm"}
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules.items())
    ]
    _put(folder, "modules.json", json.dumps(listed))
    _put(folder, "sentence_bert_config.json", json.dumps({"max_seq_length": 30}))
    for path in list(modules)[1:]:
        _put(folder, f"{path}/config.json", "{}")
    _put(folder, "2_Dense/model.safetensors", {"linear.weight": HEAD["weight"], "linear.bias": HEAD["bias"]})
    _put(folder, "3_LayerNorm/pytorch_model.bin", {"norm.weight": HEAD["bias"]})


def _adapter(folder: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], init_lora_weights=False)
    torch.manual_seed(5)
    peft.get_peft_model(fresh("bert", dtype=torch.float32), config).save_pretrained(folder)
    shutil.copytree(folder, folder / "french", ignore=shutil.ignore_patterns("french", "model*", "config.json"))


def _code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoModelForMaskedLM": "modeling_doubled.Doubled"}
    _put(folder, "config.json", json.dumps(config | {"auto_map": auto, "architectures": ["Doubled"]}))
    _put(folder, "modeling_doubled.py", CODE)


def _second_tower(folder: Path) -> None:
    for name, values in (("questions", _flipped(folder)), ("half", _half(folder))):
        _put(folder, f"{name}/{SAFE}", values)
        shutil.copy(folder / "config.json", folder / name)


def _named_by_config(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    _put(folder, "config.json", json.dumps(config | {"transformers_weights": "latest.safetensors"}))
    _put(folder, "latest.safetensors", _flipped(folder))


def _whatever(folder: Path) -> None:
    for name in ("README.md", "tokenizer.json", "chat_template.jinja", "assets/logo.png", "prompts.npz", "faiss.index"):
        _put(folder, name, WRITTEN)


KINDS: dict[str, Kind] = {
    "plain": Kind(lambda folder: None),
    "sharded": Kind(_shard),
    "pickle": Kind(_to_pickle),
    "sharded pickle": Kind(lambda folder: _shard(folder, "bin")),
    "16 bits beside a pickle": Kind(_fp16_beside_pickle, left=("model.fp16.safetensors",)),
    "many formats": Kind(
        _formats,
        (text("onnx/config.json"),),
        (
            "flax_model.msgpack", "model.fp16.safetensors", "model.gguf", "onnx/model.onnx",
            "openvino/openvino_model.bin", "openvino/openvino_model.xml", "original/consolidated.00.pth", PICKLE,
            "rust_model.ot", "tf_model.h5",
        ),
    ),
    "a trainer's checkpoint": Kind(
        _trainer,
        (at("scheduler.pt"), at("rng_state.pth"), at("scaler.pt"), at("training_args.bin"), text("trainer_state.json")),
        ("checkpoint-7", "optimizer.pt"),
    ),
    "deepspeed and fsdp": Kind(
        _deepspeed,
        (at("scheduler.pt"), at("rng_state_0.pth"), text("zero_to_fp32.py")),
        ("global_step500", "pytorch_model_fsdp_0"),
    ),
    "heads": Kind(
        _heads,
        (
            at("colbert_linear.pt"), at("sparse_linear.pt"), at("value_head.safetensors"), at("pytorch_model_head.bin"),
            text("model_head.pkl"),
        ),
    ),
    "heads beside a pickle": Kind(
        lambda folder: (_heads(folder), _to_pickle(folder))[0], (at("colbert_linear.pt"), text("model_head.pkl"))
    ),
    "sentence-transformers": Kind(
        _sentence_transformers,
        (
            text("modules.json"), text("1_Pooling/config.json"), at("2_Dense/model.safetensors"),
            at("3_LayerNorm/pytorch_model.bin"),
        ),
    ),
    "an adapter": Kind(_adapter, (at("adapter_model.safetensors"), at("french/adapter_model.safetensors"))),
    "code of its own": Kind(_code, (text("modeling_doubled.py"),), model=_coded),
    "a second tower": Kind(_second_tower, (within("questions"),), ("half/model.safetensors",)),
    "weights named by the config": Kind(_named_by_config, left=(SAFE,)),
    "whatever else": Kind(_whatever, (text("assets/logo.png"), text("prompts.npz"), text("faiss.index"))),
}  # fmt: skip
