"""Without the extra, an error that names it; with it, nothing imported before it is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hf_bias_patch
from hf_bias_patch.errors import ExtraError
from hf_bias_patch.scoring.extra import need

LIGHT = """
import sys
import hf_bias_patch.scoring.score, hf_bias_patch.scoring.data, hf_bias_patch.scoring.custom, hf_bias_patch.cli
heavy = ("datasets", "evaluate", "sklearn", "scipy", "sacrebleu", "rouge_score", "torch", "transformers", "accelerate")
print([name for name in heavy if name in sys.modules])
"""
MISSING = """
import sys
sys.modules.update(dict.fromkeys(["datasets", "evaluate", "sklearn", "scipy", "sacrebleu", "rouge_score"]))
from hf_bias_patch.cli import main
sys.argv = ["hf-bias-patch", "evaluate", "embedded:gpt2", "--task", "embedded:letters"]
main()
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    where = Path(hf_bias_patch.__path__[0]).parent
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, cwd=where, check=False
    )


def test_importing_is_light() -> None:
    assert python(LIGHT).stdout.strip() == "[]"


def test_without_the_extra() -> None:
    done = python(MISSING)
    assert done.returncode == 2 and "pip install 'hf_bias_patch[models,tune]'" in " ".join(done.stderr.split())
    with pytest.raises(ExtraError, match=r"'no_such_library' is not installed.*tune"):
        need("no_such_library.metrics")
