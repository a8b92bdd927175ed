#!/usr/bin/env bash
# One prepared run on one GPU, of at most 8 minutes: the tests that a CPU cannot make (tests/gpu), and what tuning costs
# (scripts/bench_tune.py). It needs no network, and this package need not be installed: only what it depends on.
#
#     bash scripts/gpu_checks.sh OUT          # log.txt, environment.json, *.xml, bench.json, summary.json go to OUT
#     bash scripts/gpu_checks.sh OUT cpu      # tries the checks themselves where there is no GPU: a tiny benchmark
#
# Each part has a time limit of its own. The exit code is 1 if a check failed or a part did not come to its end.
# PYTHON names the interpreter. SLOWER=4 gives a slow machine four times the time.
set -u
cd "$(dirname "$0")/.." || exit 1
out=${1:?where the results go}
device=${2:-cuda}
python=${PYTHON:-python3}
mkdir -p "$out"
: >"$out/log.txt"
: >"$out/parts.tsv"

export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 GPU_CHECKS_DEVICE="$device"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 TOKENIZERS_PARALLELISM=false

part() { # NAME SECONDS COMMAND…: runs it, and notes how it ended
  local name=$1 limit=$(($2 * ${SLOWER:-1})) start=$SECONDS code
  shift 2
  echo "== $name: at most $limit s" | tee -a "$out/log.txt"
  timeout --kill-after=5 "$limit" "$@" >"$out/part.log" 2>&1
  code=$?
  cat "$out/part.log" >>"$out/log.txt"
  tail -n 15 "$out/part.log"
  rm "$out/part.log"
  printf '%s\t%s\t%s\n' "$name" "$code" "$((SECONDS - start))" >>"$out/parts.tsv"
}

tests() { # NAME SECONDS FILE…: tests; libraries of other versions may give other warnings
  local name=$1 limit=$2
  shift 2
  if [ "$(nproc)" -ge 8 ] && "$python" -c "import xdist" 2>/dev/null; then set -- "$@" -n 4; fi
  part "$name" "$limit" "$python" -m pytest "$@" -q -W default -p no:cacheprovider --junitxml "$out/$name.xml"
}

part environment 40 "$python" scripts/gpu_summary.py environment "$out"
tests placement 90 tests/gpu/test_placement.py
tests training 90 tests/gpu/test_training.py
if [ "$device" = cpu ]; then
  part bench 130 "$python" scripts/bench_tune.py --tiny --rounds 1 --steps 2 --lengths sst2 --json "$out/bench.json"
elif "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  part bench 130 "$python" scripts/bench_tune.py --bf16 --rounds 3 --steps 30 --json "$out/bench.json"
else
  printf 'bench\tno GPU\t0\n' >>"$out/parts.tsv"
fi
tests compile 125 tests/gpu/test_compile.py
"$python" scripts/gpu_summary.py summary "$out" | tee -a "$out/log.txt"
exit "${PIPESTATUS[0]}"
