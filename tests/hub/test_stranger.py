"""What was pushed, loaded by somebody who has transformers and never heard of this package."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hf_bias_patch import patch, verify
from hf_bias_patch.publish.push import push
from tests.hub.server import Hub

BASE, NAME = "owner/base", "owner/variant"

STRANGER = """
import sys
sys.modules["hf_bias_patch"] = None  # an import of it fails
import torch
import transformers

auto = getattr(transformers, sys.argv[2])
trusted = {"trust_remote_code": True} if sys.argv[1] == "absent" else {}
base = auto.from_pretrained("owner/base").eval()
ours, info = auto.from_pretrained("owner/variant", output_loading_info=True, **trusted)
assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
biases = dict(ours.named_parameters()).keys() ^ dict(base.named_parameters()).keys()
assert bool(biases) == bool(trusted), biases
inputs = torch.arange(3, 8)[None]
with torch.no_grad():
    ours, base = ours.eval()(inputs)[0], base(inputs)[0]
print(((ours - base).norm() / base.norm()).item(), torch.equal(ours, base))
"""


@pytest.mark.parametrize(
    ("kind", "fold", "storage", "auto"),
    [
        ("bert", "key,value,query", "zeros", "AutoModelForMaskedLM"),
        ("gpt2", "key,value,query", "absent", "AutoModelForCausalLM"),
        ("bart", "key,value", "absent", "AutoModelForSeq2SeqLM"),
    ],
)
def test_it_gives_the_bases_outputs(
    hub: Hub,
    saved: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    fold: str,
    storage: str,
    auto: str,
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    hub.add(BASE, saved(kind))
    patch(BASE, tmp_path / "variant", fold=fold, storage=storage)
    verify(tmp_path / "variant", BASE)
    push(tmp_path / "variant", NAME)
    theirs = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    theirs |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "theirs"), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", STRANGER, storage, auto],
        env=theirs,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    error, equal = done.stdout.split()
    assert float(error) < 2e-6 and equal == "False"
