"""The parts of `scripts/bench_patch.py`."""
