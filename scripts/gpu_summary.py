"""What gpu_checks.sh ran on, and how its parts ended.

python scripts/gpu_summary.py environment OUT     # writes environment.json
python scripts/gpu_summary.py summary OUT         # reads parts.tsv and *.xml, prints and writes summary.json
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

PACKAGES = ("torch", "triton", "transformers", "accelerate", "peft", "datasets", "numpy", "pydantic", "safetensors")
TIMED_OUT = (124, 137)


def environment() -> dict[str, Any]:
    """Versions, the GPU and its driver."""
    import torch

    there = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if there else None,
        "gpu_memory_bytes": torch.cuda.get_device_properties(0).total_memory if there else None,
        "nvidia_smi": _said("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _said(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def parts(out: Path) -> dict[str, dict[str, Any]]:
    """Each part: how it ended, its seconds, and of tests how many passed, and the names of those that did not."""
    found = {}
    for line in (out / "parts.tsv").read_text("utf-8").splitlines():
        name, code, seconds = line.split("\t")
        found[name] = {"ended": _ended(code), "seconds": int(seconds)} | _tests(out / f"{name}.xml")
    return found


def _ended(code: str) -> str:
    if not code.isdigit():
        return f"not run: {code}"
    if int(code) in TIMED_OUT:
        return "stopped at its time limit"
    return "passed" if code == "0" else f"failed, with code {code}"


def _tests(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    cases = list(ElementTree.parse(path).iter("testcase"))
    failed = [_name(case) for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skips = [(_name(case), case.find("skipped")) for case in cases]
    skipped = {name: str(skip.get("message")) for name, skip in skips if skip is not None}
    return {"passed": len(cases) - len(failed) - len(skipped), "failed": failed, "skipped": skipped}


def _name(case: ElementTree.Element) -> str:
    return f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}"


def told(found: dict[str, dict[str, Any]]) -> list[str]:
    """The summary in lines."""
    lines = []
    for name, part in found.items():
        ran = ""
        if "passed" in part:
            ran = f"{part['passed']} passed, {len(part['failed'])} failed, {len(part['skipped'])} skipped; "
        lines.append(f"{name}: {ran}{part['ended']} ({part['seconds']} s)")
        lines += [f"  failed: {test}" for test in part.get("failed", ())]
        lines += [f"  skipped: {reason}" for reason in sorted(set(part.get("skipped", {}).values()))]
    return lines


def main() -> None:
    """Exits with 1 where a part failed or did not come to its end; what did not run for want of a GPU is named."""
    what, out = sys.argv[1], Path(sys.argv[2])
    if what == "environment":
        text = json.dumps(environment(), indent=2)
        (out / "environment.json").write_text(text, "utf-8")
        print(text)
        return
    found = parts(out)
    print("\n".join(told(found)))
    (out / "summary.json").write_text(json.dumps(found, indent=2), "utf-8")
    (out / "parts.tsv").unlink()
    broken = [name for name, part in found.items() if part["ended"].startswith(("failed", "stopped"))]
    unrun = [name for name, part in found.items() if part["ended"].startswith("not run") or _all_skipped(part)]
    if unrun:
        print(f"Not run, because torch sees no GPU: {', '.join(unrun)}")
    print(f"Failed: {', '.join(broken)}" if broken else "Nothing that ran failed")
    sys.exit(bool(broken))


def _all_skipped(part: dict[str, Any]) -> bool:
    return bool(part.get("skipped")) and not part["passed"] and not part["failed"]


if __name__ == "__main__":
    main()
