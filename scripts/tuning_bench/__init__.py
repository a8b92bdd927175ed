"""The parts of `scripts/bench_tune.py`."""
