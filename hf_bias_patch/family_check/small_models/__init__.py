"""Small random models of any type that transformers knows, and inputs to run them with."""

from hf_bias_patch.family_check.small_models.changes import changes_of
from hf_bias_patch.family_check.small_models.classes import stock_classes
from hf_bias_patch.family_check.small_models.config import CANNOT, model_types, small_config
from hf_bias_patch.family_check.small_models.model import small_instance, small_model
from hf_bias_patch.models.inputs.random_inputs import inputs_of, run, run_all, sets_of

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
