"""Damages files at random and calls everything that reads them; `make fuzz`.

    python -m tests.fuzz [COUNT] [SEED]…

Every call must end in a result or in an error of ours, within 20 s of the processor and 512 MB, the source as it was
and nothing half-written. Prints the faults by kind, each with the trial that shows it first; exit code 1 if there is
one. A single trial again: `python -m tests.fuzz --trial NUMBER SEED`.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.fuzz.seeds import make_seeds
from tests.fuzz.trial import trial


def main(arguments: list[str]) -> int:
    """Run trials; the exit code."""
    single = arguments[:1] == ["--trial"]
    numbers = [int(text) for text in arguments[single:]] or [2000]
    seeds = numbers[1:] or [0]
    began, counts, faults = time.time(), Counter[str](), dict[str, list[str]]()
    with TemporaryDirectory() as place:
        sources = make_seeds(Path(place))
        for seed in seeds:
            for number in [numbers[0]] if single else range(numbers[0]):
                outcome = trial(sources, number, seed)
                counts.update(f"{what} done" for what in outcome.done)
                counts.update(f"{what} refused" for what in outcome.refused)
                for fault in outcome.faults:
                    kind = re.sub(r"\d+", "N", re.sub(r"^[^:]*: ", "", fault) if not single else fault)
                    if kind not in faults:
                        print(f"--trial {number} {seed}: {fault[:300]}", flush=True)
                    faults.setdefault(kind, []).append(f"{number} {seed}")
    for kind, shown in sorted(faults.items(), key=lambda item: -len(item[1])):
        print(f"{len(shown)} × {kind} (first: --trial {shown[0]})")
    print(f"{', '.join(f'{what} {count}' for what, count in sorted(counts.items()))}")
    print(f"{len(faults)} kinds of faults, {time.time() - began:.0f} s")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
