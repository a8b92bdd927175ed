"""Small random models of any type that transformers knows, and inputs to run them with."""

from hf_bias_patch.probing.small.changes import changes_of
from hf_bias_patch.probing.small.classes import stock_classes
from hf_bias_patch.probing.small.config import CANNOT, model_types, small_config
from hf_bias_patch.probing.small.inputs import inputs_of, run, run_all, sets_of
from hf_bias_patch.probing.small.model import small_instance, small_model

__all__ = [
    "CANNOT",
    "changes_of",
    "inputs_of",
    "model_types",
    "run",
    "run_all",
    "sets_of",
    "small_config",
    "small_instance",
    "small_model",
    "stock_classes",
]
