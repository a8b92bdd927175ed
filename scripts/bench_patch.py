"""Time, memory and bytes written of patching, beside `cp` and beside loading, editing and saving.

    python scripts/bench_patch.py --workdir /big/disk/bench --json figures.json

Makes a checkpoint of gpt2-large's shape with random values (3.1 GB, once), copies it for the edits in place,
and runs every arm in a process of its own, `--repeats` times in shuffled order. Before each run the files it
reads are brought into the page cache and what was written before is flushed, so that no arm pays for another.
It takes four times the checkpoint in disk space. What is measured, and what came out: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import mmap
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent.parent
MB = 1e6
SYNC = "cp + sync"
RECORD = "cp, sha256 beside"
NAIVE = "naive: load, edit, save"
FOLDS = ("key", "key,value", "key,value,query")
CALM = 0.3  # of a core: what others may use before a run counts as disturbed; writeback needs some of it


# --------------------------------------------------------------------------------------------- made-up inputs


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2."""

    layers: int
    width: int
    heads: int
    vocab: int = 50257
    positions: int = 1024

    def config(self) -> dict[str, Any]:
        """Its config.json."""
        sizes = {
            "n_layer": self.layers,
            "n_embd": self.width,
            "n_head": self.heads,
            "n_positions": self.positions,
        }
        return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": self.vocab, **sizes}

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Names and shapes, in the order of the file."""
        width = self.width
        yield "transformer.wte.weight", (self.vocab, width)
        yield "transformer.wpe.weight", (self.positions, width)
        for layer in range(self.layers):
            at = f"transformer.h.{layer}"
            maps = [("attn.c_attn", 1, 3), ("attn.c_proj", 1, 1), ("mlp.c_fc", 1, 4), ("mlp.c_proj", 4, 1)]
            for name, into, out in maps:
                yield f"{at}.{name}.weight", (into * width, out * width)
                yield f"{at}.{name}.bias", (out * width,)
            for name in ("ln_1", "ln_2"):
                yield f"{at}.{name}.weight", (width,)
                yield f"{at}.{name}.bias", (width,)
        yield "transformer.ln_f.weight", (width,)
        yield "transformer.ln_f.bias", (width,)


def header(tensors: Sequence[tuple[str, tuple[int, ...]]]) -> bytes:
    """First bytes of a float32 safetensors file."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, shape in tensors:
        stop = start + 4 * product(shape)
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": (start, stop)}
        start = stop
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def product(shape: tuple[int, ...]) -> int:
    count = 1
    for axis in shape:
        count *= axis
    return count


def make_checkpoint(folder: Path, shape: Shape) -> None:
    """Random values, streamed; a last file named made.json says that all is there, and the sha256."""
    import numpy as np

    folder.mkdir(parents=True)
    generator, digest = np.random.default_rng(0), hashlib.sha256()
    tensors = list(shape.tensors())
    with open(folder / "model.safetensors", "wb") as file:
        for piece in _pieces(tensors, generator):
            digest.update(piece)
            file.write(piece)
    (folder / "config.json").write_text(json.dumps(shape.config()), "utf-8")
    made = {"shape": asdict(shape), "sha256": digest.hexdigest()}
    (folder.parent / f"{folder.name}.made.json").write_text(json.dumps(made), "utf-8")


def _pieces(tensors: Sequence[tuple[str, tuple[int, ...]]], generator: Any) -> Iterator[bytes]:
    yield header(tensors)
    for name, shape in tensors:
        centre = 1.0 if len(shape) == 1 and name.endswith("weight") else 0.0
        left = product(shape)
        while left:
            count = min(left, 1 << 22)
            values = generator.standard_normal(count, "float32") * (0.02 if len(shape) > 1 else 0.1) + centre
            yield values.astype("<f4").tobytes()
            left -= count


def make_shards(folder: Path, shape: Shape, count: int) -> None:
    """A checkpoint in `count` shards whose matrices are holes in sparse files."""
    import numpy as np

    folder.mkdir(parents=True)
    tensors, generator = list(shape.tensors()), np.random.default_rng(0)
    weight_map = {}
    for number in range(count):
        part = tensors[number::count]
        file = f"model-{number + 1:05}-of-{count:05}.safetensors"
        weight_map |= {name: file for name, _ in part}
        with open(folder / file, "wb") as shard:
            shard.write(header(part))
            for _, axes in part:
                if len(axes) == 1:
                    shard.write(generator.standard_normal(axes, "float32").tobytes())
                else:
                    shard.seek(4 * product(axes), os.SEEK_CUR)
            shard.truncate()
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    (folder / "config.json").write_text(json.dumps(shape.config()), "utf-8")


def make_hub_snapshot(cache: Path, source: Path, sha256: str) -> Path:
    """The checkpoint as the Hub's cache holds it: a link to a file named by its sha256. Shares the bytes."""
    repo = cache / "models--made-up--gpt2"
    snapshot = repo / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    os.link(source / "model.safetensors", repo / "blobs" / sha256)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{sha256}")
    shutil.copyfile(source / "config.json", snapshot / "config.json")
    return snapshot


# -------------------------------------------------------------------------- what runs in a process of its own


def worker(task: str, *arguments: str) -> None:
    """Do one task and print what it measured of itself, as a line of JSON."""
    figures = WORKERS[task](*arguments)
    print(json.dumps({**(figures or {}), **_written()}))


def _written() -> dict[str, int]:
    """Bytes given to write calls, and bytes of pages made dirty, by this process so far."""
    lines = Path("/proc/self/io").read_text("ascii").splitlines()
    counts = {name: int(value) for name, _, value in (line.partition(":") for line in lines)}
    return {"written_bytes": counts["wchar"], "dirtied_bytes": counts["write_bytes"]}


def patch_copy(source: str, out: str, fold: str) -> dict[str, Any]:
    """Write a variant."""
    from hf_bias_patch import patch

    return _call(lambda: patch(source, out, fold=fold))


def patch_where_it_lies(source: str, out: str, fold: str) -> dict[str, Any]:
    """Patch in place."""
    from hf_bias_patch import patch_in_place

    return _call(lambda: patch_in_place(source, fold=fold))


def take_back(source: str, out: str) -> None:
    """Revert in place."""
    from hf_bias_patch import revert

    revert(source)


def _call(job: Callable[[], Any]) -> dict[str, Any]:
    start = time.perf_counter()
    plan = job().plan
    seconds = time.perf_counter() - start
    matrices = {edit.slot.weight for edit in plan.edits if edit.into == "weight"}
    largest = max((plan.touched[name] for name in matrices), default=0)
    return {"call_seconds": seconds, "touched_bytes": sum(plan.touched.values()), "largest_matrix": largest}


def copy_and_hash(source: str, out: str) -> None:
    """The least that a copy with a recorded sha256 can cost: nothing else is done."""
    copying = subprocess.Popen(["cp", "-r", source, out])
    with open(Path(source, "model.safetensors"), "rb", buffering=0) as file:
        digest, buffer = hashlib.sha256(), bytearray(128 << 10)
        while count := file.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
    if copying.wait():
        sys.exit("cp failed")


def naive(source: str, out: str) -> None:
    """Key and value biases folded the usual way: load, edit, save."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        for block in model.transformer.h:
            fused, output, width = block.attn.c_attn, block.attn.c_proj, block.attn.embed_dim
            output.bias += fused.bias[2 * width :] @ output.weight
            fused.bias[width:] = 0
    model.save_pretrained(out)


def touch(nbytes: str) -> None:
    """Use memory once and free it: a virtual machine fetches it from its host now, not in the next arm."""
    with mmap.mmap(-1, int(nbytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for page in range(0, int(nbytes), mmap.PAGESIZE):
            memory[page] = 1


def make(folder: str, layers: str, width: str, heads: str, shards: str) -> None:
    """Make an input; apart, so that its memory does not count as a later child's."""
    shape = Shape(int(layers), int(width), int(heads))
    make_shards(Path(folder), shape, int(shards)) if int(shards) else make_checkpoint(Path(folder), shape)


WORKERS: dict[str, Callable[..., dict[str, Any] | None]] = {
    "patch": patch_copy,
    "in-place": patch_where_it_lies,
    "revert": take_back,
    "copy-and-hash": copy_and_hash,
    "naive": naive,
    "touch": touch,
    "make": make,
}


# ------------------------------------------------------------------------------------------------------- arms


@dataclass(frozen=True)
class Arm:
    """One thing to measure.

    Attributes:
        name: what the table calls it.
        command: what is run; `{out}` stands for the folder to write.
        reads: files brought into the page cache first.
        after: a command that undoes it, not measured.
    """

    name: str
    command: tuple[str, ...]
    reads: Path
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One run of an arm.

    Attributes:
        seconds: from start to end of the process.
        cpu_seconds: user and system time of it and its children.
        peak_bytes: the most memory it held (`ru_maxrss`), and at least the benchmark's own, inherited.
        foreign_cores: how many cores everything else on the machine used meanwhile.
        figures: what a worker said of itself.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    foreign_cores: float
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def calm(self) -> bool:
        """Whether the machine did little else meanwhile."""
        return self.foreign_cores <= CALM


@dataclass(frozen=True)
class Failure:
    """Why an arm has no figures."""

    arm: str
    why: str


@dataclass(frozen=True)
class Inputs:
    """The made-up checkpoints: whole, to edit in place, in the Hub's cache, in many shards."""

    source: Path
    editable: Path
    snapshot: Path
    sharded: Path
    shards: int


def arms(inputs: Inputs) -> list[Arm]:
    """Everything that is compared, in the order of the table."""
    source, editable = str(inputs.source), str(inputs.editable)
    found = [
        Arm("cp", ("cp", "-r", source, "{out}"), inputs.source),
        Arm(SYNC, _shell('cp -r "$0" "$1" && sync "$1"/* "$1"', source), inputs.source),
        Arm(RECORD, _own("copy-and-hash", source, "{out}"), inputs.source),
        Arm(NAIVE, _own("naive", source, "{out}"), inputs.source),
    ]
    for fold in FOLDS:
        found.append(Arm(f"patch {fold}", _own("patch", source, "{out}", fold), inputs.source))
    found += [
        Arm(
            "patch key,value, Hub cache",
            _own("patch", str(inputs.snapshot), "{out}", "key,value"),
            inputs.source,
        ),
    ]
    back = _own("revert", editable, "{out}")
    for fold in FOLDS:
        command = _own("in-place", editable, "{out}", fold)
        found.append(Arm(f"in place {fold}", command, inputs.editable, back))
    command_line = (sys.executable, "-m", "hf_bias_patch")
    return [
        *found,
        Arm("--help", (*command_line, "--help"), inputs.sharded),
        Arm("inspect", (*command_line, "inspect", source), inputs.source),
        Arm(
            f"inspect {inputs.shards:,} shards",
            (*command_line, "inspect", str(inputs.sharded)),
            inputs.sharded,
        ),
    ]


def _own(task: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, __file__, "--worker", task, *arguments)


def _shell(script: str, source: str) -> tuple[str, ...]:
    return ("sh", "-c", script, source, "{out}")


def run(arm: Arm, out: Path, patience: float) -> Sample | Failure:
    """Run an arm once, from a clean start."""
    _await_calm(patience)
    shutil.rmtree(out, ignore_errors=True)
    _warm(arm.reads)
    os.sync()
    needed = sum(path.stat().st_blocks * 512 for path in arm.reads.iterdir())
    subprocess.run(_own("touch", str(needed + (512 << 20))), check=True, stdout=subprocess.DEVNULL)
    sample = _measured(arm, out)
    if arm.after and isinstance(sample, Sample):
        subprocess.run(_filled(arm.after, out), check=True, stdout=subprocess.DEVNULL, env=_environment())
    shutil.rmtree(out, ignore_errors=True)
    return sample


def _measured(arm: Arm, out: Path) -> Sample | Failure:
    busy, start = _busy_seconds(), time.perf_counter()
    # A file takes the output: a pipe would have to be emptied before the child can be waited for.
    log = out.with_name("output.txt")
    with open(log, "wb") as output:
        child = subprocess.Popen(_filled(arm.command, out), stdout=output, stderr=output, env=_environment())
        _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    child.returncode = os.waitstatus_to_exitcode(status)
    lines = log.read_text("utf-8", "replace").strip().splitlines() or [""]
    if child.returncode:
        return Failure(arm.name, lines[-1])
    cpu = usage.ru_utime + usage.ru_stime
    foreign = _busy_seconds() - busy - cpu
    figures = json.loads(lines[-1]) if "--worker" in arm.command else {}
    return Sample(seconds, cpu, usage.ru_maxrss * 1024, max(0.0, foreign / seconds), figures)


def _filled(command: Sequence[str], out: Path) -> list[str]:
    return [part.replace("{out}", str(out)) for part in command]


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(PACKAGE), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "COLUMNS": "120"}


def _await_calm(patience: float) -> None:
    """Wait until the machine is idle, but not for longer than `patience` seconds."""
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        busy = _busy_seconds()
        time.sleep(2)
        if _busy_seconds() - busy < 2 * CALM:
            break


def _warm(folder: Path) -> None:
    buffer = bytearray(8 << 20)
    for path in sorted(folder.iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _busy_seconds() -> float:
    """CPU seconds that all processes together have used since the machine started."""
    fields = [int(text) for text in Path("/proc/stat").read_text("ascii").splitlines()[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")


# ------------------------------------------------------------------------------------------------------- bars


@dataclass(frozen=True)
class Bar:
    """A promise, and what became of it.

    Attributes:
        measured: None where its arm did not run.
        strict: whether it is the promise as it stands, or the same figure counted otherwise, to explain it.
    """

    name: str
    measured: float | None
    limit: float
    unit: str
    strict: bool = True

    @property
    def met(self) -> bool:
        """Whether it was kept; what was not measured was not kept."""
        return self.measured is not None and self.measured <= self.limit


class Results:
    """All samples, by arm. Medians are over those that nothing disturbed, or over all if there is none."""

    def __init__(self, samples: dict[str, list[Sample]]) -> None:
        self.samples = samples
        calm = {arm: [sample for sample in found if sample.calm] for arm, found in samples.items()}
        self.used = {arm: calm[arm] or found for arm, found in samples.items()}

    def seconds(self, arm: str) -> float | None:
        """Median seconds of an arm's whole process."""
        return self._median(arm, lambda sample: sample.seconds)

    def figure(self, arm: str, name: str) -> float | None:
        """Median of what an arm said of itself."""
        return self._median(arm, lambda sample: sample.figures.get(name))

    def peak(self, arm: str) -> float | None:
        """Largest peak memory of an arm, in bytes."""
        return max((sample.peak_bytes for sample in self.samples.get(arm, [])), default=None)

    def ratio(self, arm: str, peer: str) -> float | None:
        """Median seconds of an arm over those of a peer."""
        one, other = self.seconds(arm), self.seconds(peer)
        return one / other if one and other else None

    def _median(self, arm: str, take: Callable[[Sample], float | None]) -> float | None:
        values = [value for sample in self.used.get(arm, []) if (value := take(sample)) is not None]
        return statistics.median(values) if values else None


def bars(results: Results, shards: int) -> list[Bar]:
    """Every promise against its figure."""
    found = []
    for fold in FOLDS:
        arm = f"patch {fold}"
        found += [
            Bar(f"{arm}: time, against cp", results.ratio(arm, "cp"), 1.25, "x"),
            Bar(f"{arm}: time, against naive", results.ratio(arm, NAIVE), 0.5, "x"),
            _memory_bar(results, arm),
        ]
    for fold in FOLDS:
        found += _in_place_bars(results, f"in place {fold}", vectors="query" not in fold)
    found += [
        Bar("--help: time", results.seconds("--help"), 0.3, "s"),
        Bar("inspect: time", results.seconds("inspect"), 0.7, "s"),
        Bar(f"inspect {shards:,} shards: time", results.seconds(f"inspect {shards:,} shards"), 2.0, "s"),
    ]
    peers = [(f"patch {fold}", SYNC) for fold in FOLDS] + [
        (f"patch {FOLDS[1]}", RECORD),
        (f"patch {FOLDS[1]}, Hub cache", "cp"),
    ]
    found += [
        Bar(f"{arm}: time, against {peer}", results.ratio(arm, peer), 1.25, "x", strict=False) for arm, peer in peers
    ]
    return sorted(found, key=lambda bar: not bar.strict)


def _memory_bar(results: Results, arm: str) -> Bar:
    peak = results.peak(arm)
    limit = 150 + (results.figure(arm, "largest_matrix") or 0) / MB
    return Bar(f"{arm}: peak memory", None if peak is None else peak / MB, limit, "MB")


def _in_place_bars(results: Results, arm: str, *, vectors: bool) -> list[Bar]:
    touched = results.figure(arm, "touched_bytes")
    ratios = {
        what: written / touched
        for what in ("written", "dirtied")
        if touched and (written := results.figure(arm, f"{what}_bytes")) is not None
    }
    found = [
        Bar(f"{arm}: bytes written, against touched", ratios.get("written"), 3, "x"),
        Bar(f"{arm}: bytes of pages made dirty, against touched", ratios.get("dirtied"), 3, "x", strict=False),
        _memory_bar(results, arm),
    ]
    if vectors:
        call = results.figure(arm, "call_seconds")
        found.append(Bar(f"{arm}: time of the process", results.seconds(arm), 0.5, "s"))
        found.append(Bar(f"{arm}: time of the call in it", call, 0.5, "s", strict=False))
    return found


# ----------------------------------------------------------------------------------------------------- report


COLUMNS = (
    "seconds",
    "CPU s",
    "x cp",
    "x cp+sync",
    "peak MB",
    "MB written",
    "touched",
    "cores of others",
    "runs",
)


def report(results: Results, failures: Sequence[Failure], judged: Sequence[Bar]) -> None:
    """Print both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    table = Table("arm", title="Arms (medians; the fastest and slowest run in brackets)")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for arm in results.samples:
        table.add_row(arm, *_row(results, arm))
    console.print(table)
    for failure in failures:
        console.print(f"[red]not measured[/red] {failure.arm}: {failure.why}")
    for strict, title in ((True, "Bars"), (False, "The same, counted otherwise")):
        console.print(_bar_table([bar for bar in judged if bar.strict is strict], title))
    strict_bars = [bar for bar in judged if bar.strict]
    console.print(f"{sum(bar.met for bar in strict_bars)} of {len(strict_bars)} bars met")


def _bar_table(judged: Sequence[Bar], title: str) -> Any:
    from rich.table import Table

    table = Table("bar", title=title)
    for column in ("measured", "limit", ""):
        table.add_column(column, justify="right")
    for bar in judged:
        verdict = "[green]pass[/green]" if bar.met else "[bold red]MISS[/bold red]"
        table.add_row(bar.name, _text(bar.measured, bar.unit), _text(bar.limit, bar.unit), verdict)
    return table


def _row(results: Results, arm: str) -> list[str]:
    samples = results.used[arm]
    seconds = [sample.seconds for sample in samples]
    figures = [results.figure(arm, name) for name in ("written_bytes", "touched_bytes")]
    foreign = max(sample.foreign_cores for sample in samples)
    return [
        f"{statistics.median(seconds):.2f} [{min(seconds):.2f}..{max(seconds):.2f}]",
        f"{statistics.median(sample.cpu_seconds for sample in samples):.2f}",
        _text(results.ratio(arm, "cp"), ""),
        _text(results.ratio(arm, SYNC), ""),
        _text((results.peak(arm) or 0) / MB, ""),
        *(_text(None if value is None else value / MB, "") for value in figures),
        f"{foreign:.2f}" + ("" if samples[0].calm else " (!)"),
        f"{len(samples)}/{len(results.samples[arm])}",
    ]


def _text(value: float | None, unit: str) -> str:
    return "not measured" if value is None and unit else "" if value is None else f"{value:,.3g} {unit}".rstrip()


def machine(folder: Path) -> dict[str, Any]:
    """What the figures depend on."""
    memory = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if "MemTotal" in line)
    models = [line for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if line.startswith("model name")]
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": models[0].partition(":")[2].strip() if models else platform.machine(),
        "memory_gb": round(int(memory.split()[1]) * 1024 / 1e9, 1),
        "kernel": platform.release(),
        "filesystem": kind.stdout.strip(),
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
    }


# ------------------------------------------------------------------------------------------------------- main


def prepare(workdir: Path, shape: Shape, shards: int) -> Inputs:
    """Make the inputs, unless an earlier run did."""
    name = f"gpt2-{shape.layers}x{shape.width}"
    source, editable, cache, sharded = (
        workdir / part for part in (name, f"{name}-editable", f"{name}-hub", f"shards-{shards}")
    )
    record = workdir / f"{name}.made.json"
    if not record.exists():
        shutil.rmtree(source, ignore_errors=True)
        _make(source, shape, 0)
    sha256 = json.loads(record.read_text("utf-8"))["sha256"]
    for folder in (editable, cache):
        shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, editable)
    if not (sharded / "config.json").exists():
        shutil.rmtree(sharded, ignore_errors=True)
        layers = max(1, (3 * shards - 4) // 12)
        _make(sharded, Shape(layers, 256, 4, vocab=50257), shards)
    return Inputs(source, editable, make_hub_snapshot(cache, source, sha256), sharded, shards)


def _make(folder: Path, shape: Shape, shards: int) -> None:
    sizes = map(str, (shape.layers, shape.width, shape.heads, shards))
    subprocess.run(_own("make", str(folder), *sizes), check=True, stdout=subprocess.DEVNULL, env=_environment())


def unharmed(inputs: Inputs) -> bool:
    """Whether the checkpoint edited in place and taken back is the source again."""
    names = sorted(path.name for path in inputs.source.iterdir())
    if names != sorted(path.name for path in inputs.editable.iterdir()):
        return False
    compare = ["cmp", "-s"]
    return not any(subprocess.call([*compare, inputs.source / name, inputs.editable / name]) for name in names)


def measure(inputs: Inputs, workdir: Path, repeats: int, patience: float) -> tuple[Results, list[Failure]]:
    """Run all arms `repeats` times, each time in another order."""
    chosen = arms(inputs)
    samples: dict[str, list[Sample]] = {arm.name: [] for arm in chosen}
    failures: dict[str, Failure] = {}
    for repetition in range(repeats):
        order = random.Random(repetition).sample(chosen, len(chosen))
        for arm in order:
            if arm.name in failures:
                continue
            outcome = run(arm, workdir / "out", patience)
            if isinstance(outcome, Failure):
                failures[arm.name] = outcome
            else:
                samples[arm.name].append(outcome)
                print(
                    f"{repetition + 1}/{repeats} {arm.name}: {outcome.seconds:.2f} s",
                    file=sys.stderr,
                    flush=True,
                )
    return Results({name: found for name, found in samples.items() if found}), list(failures.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=Path, default=Path("bench"), help="where the checkpoints are made")
    parser.add_argument("--layers", type=int, default=36, help="layers of the made-up checkpoint (36: 3.1 GB)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--wait", type=float, default=0, help="seconds to wait for an idle machine, each run")
    parser.add_argument("--json", type=Path, help="write every figure here")
    parser.add_argument("--quick", action="store_true", help="2 layers, 50 shards, once: whether it runs at all")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
        return 0
    layers, repeats, shards = (2, 1, 50) if options.quick else (options.layers, options.repeats, 1000)
    workdir = options.workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    about = machine(workdir)
    inputs = prepare(workdir, Shape(layers, 1280, 20), shards)
    results, failures = measure(inputs, workdir, repeats, options.wait)
    judged = bars(results, shards)
    report(results, failures, judged)
    restored = unharmed(inputs)
    print("edits in place were taken back bit for bit" if restored else "EDITS IN PLACE WERE NOT TAKEN BACK")
    if options.json:
        content = {
            "machine": about,
            "layers": layers,
            "repeats": repeats,
            "samples": {name: [asdict(sample) for sample in found] for name, found in results.samples.items()},
            "failures": [asdict(failure) for failure in failures],
            "bars": [{**asdict(bar), "met": bar.met} for bar in judged],
            "restored": restored,
        }
        options.json.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
