"""Loads a checkpoint from which hf_bias_patch took attention biases away (storage `absent`).

Stock transformers would add the missing biases again, as zeros. The classes here are the stock ones, without
those parameters. This file is part of hf_bias_patch and is also shipped in every such checkpoint, as
modeling_bias_patch.py, for `AutoModel.from_pretrained(..., trust_remote_code=True)`; so it imports nothing of
the package, and nothing but torch and transformers.
"""

import re
from pathlib import Path
from typing import Any

import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

MODEL_TYPE = ""
"""Filled in where the file is shipped."""

SOURCE = Path(__file__).read_text("utf-8")


class Conv1DWithoutBias(Conv1D):
    """transformers' Conv1D computes with its bias; this one has none. Weight of shape (in, out)."""

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


def remove_biases(model: nn.Module, names: list[str]) -> None:
    """Take bias parameters out of a model.

    Args:
        model: a transformers model, changed in place.
        names: parameter names as the checkpoint has them, with or without the name of the base model in front.
    """
    prefix = getattr(model, "base_model_prefix", "") + "."
    wanted = {name.removeprefix(prefix) for name in names}
    for path, module in list(model.named_modules()):
        if f"{path}.bias".removeprefix(prefix) not in wanted:
            continue
        if isinstance(module, Conv1D):
            module.__class__ = Conv1DWithoutBias
        module.register_parameter("bias", None)


def without_biases(stock: Any) -> Any:
    """The stock model class, whose models lack the biases that `config.bias_patch` lists as absent."""

    def init(self: Any, config: Any, *args: Any, **kwargs: Any) -> None:
        stock.__init__(self, config, *args, **kwargs)
        remove_biases(self, config.bias_patch["absent"])

    def save_pretrained(self: Any, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        stock.save_pretrained(self, save_directory, *args, **kwargs)
        # The saved config names this module, so it goes along.
        text = re.sub("^MODEL_TYPE = .*$", f"MODEL_TYPE = {self.config.model_type!r}", SOURCE, count=1, flags=re.M)
        (Path(save_directory) / "modeling_bias_patch.py").write_text(text, "utf-8")

    members = {"__init__": init, "save_pretrained": save_pretrained, "__module__": __name__}
    return type(stock.__name__, (stock,), members | {"__doc__": stock.__doc__})


def __getattr__(name: str) -> Any:
    """`AutoModelForX` or a stock class name, as the class of this checkpoint's type without the absent biases."""
    if name.startswith("__") or not hasattr(transformers, name):
        raise AttributeError(name)
    stock = getattr(transformers, name)
    if name.startswith("Auto"):
        stock = stock._model_mapping[transformers.CONFIG_MAPPING[MODEL_TYPE]]
    globals()[name] = without_biases(stock)
    return globals()[name]
