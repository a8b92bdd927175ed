"""What the package promises to those who import it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import hf_bias_patch
from hf_bias_patch import errors

PUBLIC = [
    "Applied",
    "Card",
    "Certificate",
    "CompareSettings",
    "EvaluateSettings",
    "Evaluation",
    "GenerationSettings",
    "GlueSettings",
    "Inspection",
    "LanguageSettings",
    "Patched",
    "Plan",
    "Probed",
    "PushPlan",
    "Pushed",
    "Recipe",
    "Reverted",
    "StudyComparison",
    "StudyResult",
    "StudySettings",
    "Survey",
    "__version__",
    "apply",
    "card",
    "compare",
    "compare_studies",
    "evaluate",
    "inspect",
    "load",
    "patch",
    "patch_in_place",
    "plan",
    "plan_push",
    "probe",
    "pull",
    "push",
    "revert",
    "study",
    "survey",
    "tune",
    "verify",
    "where_possible",
]
PACKAGE = Path(hf_bias_patch.__path__[0])


def test_the_public_names() -> None:
    assert hf_bias_patch.__all__ == PUBLIC == sorted(PUBLIC)
    assert dir(hf_bias_patch) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    value = getattr(hf_bias_patch, name)
    if name == "__version__":
        assert value.count(".") == 2
    else:
        assert value.__name__ == name and value.__doc__
        assert name in import_module(value.__module__).__all__


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="'hf_bias_patch' has no attribute 'fold'"):
        hf_bias_patch.fold  # noqa: B018


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").read_text() == ""


def python(code: str, *arguments: object) -> str:
    """What a fresh interpreter prints, with warnings as errors."""
    path = os.pathsep.join(filter(None, [str(PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_is_light() -> None:
    heavy = ("torch", "transformers", "numpy", "pydantic", "huggingface_hub", "yaml")
    assert python(f"import hf_bias_patch, sys; print([name for name in {heavy} if name in sys.modules])") == "[]"


EDITING = """
import sys
import hf_bias_patch as hbp
source, folder = sys.argv[1:]
hbp.inspect(source)
hbp.plan(source, fold="key,value,query")
hbp.patch(source, f"{folder}/zeros", fold="key,value,query")
hbp.patch(source, f"{folder}/absent", fold="key,value,query", storage="absent")
hbp.patch_in_place(f"{folder}/zeros", fill="output=0.5")
hbp.revert(f"{folder}/zeros")
hbp.revert(f"{folder}/zeros")
hbp.revert(f"{folder}/absent", f"{folder}/back")
print([name for name in ("torch", "transformers", "safetensors", "tokenizers") if name in sys.modules])
"""


def test_looking_and_editing_never_import_a_framework(
    saved: Callable[..., Path], tree: Callable[[Path], dict[str, str]], tmp_path: Path
) -> None:
    source = saved("bart", shard="20KB")
    assert python(EDITING, source, tmp_path) == "[]"
    assert tree(tmp_path / "zeros") == tree(tmp_path / "back") == tree(source)


TREE = {
    "BiasPatchError": Exception,
    "ArgumentError": TypeError,
    "SourceError": FileNotFoundError,
    "CheckpointError": ValueError,
    "FamilyError": LookupError,
    "RecipeError": ValueError,
    "PlanError": ValueError,
    "TargetError": OSError,
    "VerifyError": RuntimeError,
    "TaskError": ValueError,
    "DataError": ValueError,
    "TuneError": RuntimeError,
    "ExtraError": ImportError,
    "UnreachableError": errors.SourceError,
    "ValuesError": errors.CheckpointError,
}


def test_the_errors() -> None:
    assert sorted(TREE) == errors.__all__
    for name, builtin in TREE.items():
        kind = getattr(errors, name)
        assert issubclass(kind, errors.BiasPatchError) and issubclass(kind, builtin)
        assert name in (errors.__doc__ or ""), "the drawing is out of date"
        message = str(kind("Tensor a is bad", why="It is negative", remedy="Use b"))
        assert message == "Tensor a is bad. It is negative. Use b."
        assert str(kind("Tensor a is bad")) == "Tensor a is bad."
        with pytest.raises(builtin):
            raise kind("x")


def test_errors_survive_a_process_boundary() -> None:
    for name in TREE:
        error = getattr(errors, name)("what", why="why", remedy="remedy")
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error) and str(again) == str(error) == "what. why. remedy."
