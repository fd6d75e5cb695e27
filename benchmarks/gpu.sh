#!/usr/bin/env bash
# All that needs a GPU, in parts that each are one call and end by themselves:
#
#   benchmarks/gpu.sh [--dry] check      at most 200 s: the tests marked gpu in four processes; a ResNet-50's step, eager and
#                                        compiled, with a profile of each
#   benchmarks/gpu.sh [--dry] measure    at most 420 s: the speed of ResNet-50, ResNet-18 at 32 px, CLIP B/32 and SimCLR
#                                        beside their peers; then what three methods learn from 40 classes of Tiny-ImageNet in
#                                        the same time
#   benchmarks/gpu.sh [--dry] transfer   at most 150 s: transfer beside a plain loop
#
# What is worth most comes first. What does not fit into the time is left out, and its file says so. All is done on all
# cores but one. --dry takes the smallest of everything, and runs without a GPU too. What is worth keeping goes to $OUT
# (out/gpu by default), at most eight files a part, none over 16 MiB: machine.txt; check: tests.log, steps.md, steps.log and
# two traces; measure: speed.md, .json, .log, methods.md, .log; transfer: transfer.md, .log. To keep: speed.md in
# docs/results/speed.md, methods.md in docs/results/methods.md.
#
# A machine without a network brings what is missing there in wheels/, which git ignores: packages as wheels/site.tar.xz
# and the images as wheels/tiny-imagenet.tar.xz (85 classes, train/WNID and val/WNID, 33 MiB); tasks as wheels/tasks/*.tar
# or .tar.xz, a folder of class folders each. Where torch, torchvision,
# timm, pyarrow, safetensors, scikit-learn and pytest with hypothesis and timeout are there (Python 3.12), these are
# missing, 20 MiB compressed (as wheels they are 30); without pytest-xdist the tests run in one process:
#
#   pip install --target site --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
#     --platform manylinux2014_x86_64 \
#     duckdb open_clip_torch ftfy wcwidth regex pydantic pydantic-core annotated-types typing-inspection \
#     typing-extensions simplejpeg webdataset braceexpand lightly pytest-xdist execnet
#   mkdir -p wheels && tar cJf wheels/site.tar.xz -C site . && cp …/tiny-imagenet.tar.xz wheels/
#
# Of lightly the head and the loss alone are used, which need nothing else of it.
set -u
cd "$(dirname "$0")/.."
dry=
parts=()
for word in "$@"; do
  case $word in
    --dry) dry=--dry ;;
    check | measure | transfer) parts+=("$word") ;;
    *) echo "gpu.sh: no part '$word': there are check, measure, transfer" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || { echo "gpu.sh: name a part: check, measure or transfer" >&2; exit 2; }
OUT=${OUT:-out/gpu}
PYTHON=${PYTHON:-python3}
mkdir -p "$OUT"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export CURATE_CACHE=${CURATE_CACHE:-$work/cache} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

if [ -f wheels/site.tar.xz ]; then
  mkdir "$work/site"
  tar xJf wheels/site.tar.xz -C "$work/site"
  PYTHONPATH=$PYTHONPATH:$work/site
fi

cores=$(nproc)
[ "$cores" -gt 1 ] && cores=$((cores - 1))  # one is left to whoever watches
few=
[ -z "$dry" ] && command -v taskset >/dev/null && few="taskset -c 0-$((cores - 1))"
export OMP_NUM_THREADS=$cores

failed=0
step() { # NAME SECONDS COMMAND…: into $OUT/NAME.log, for so long at most, or for what is left of the part
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  [ "$limit" -lt $((end - SECONDS)) ] || limit=$((end - SECONDS))
  if [ "$limit" -lt 5 ]; then
    echo "== $name: not begun, out of time"
    failed=1
    return
  fi
  timeout -k 5 "$limit" $few "$@" >"$OUT/$name.log" 2>&1 || code=$?
  [ $code = 0 ] || failed=1
  echo "== $name: exit $code after $((SECONDS - began)) s of at most $limit$([ $code = 124 ] && echo ', out of time')"
}

check() {
  end=$((SECONDS + 190))
  # -m gpu leaves out all others; a report of what was skipped says when there is no GPU.
  local four=(-n 4)
  { [ -z "$dry" ] && "$PYTHON" -c 'import xdist' 2>/dev/null; } || four=()
  step tests 110 "$PYTHON" -m pytest -p no:cacheprovider -m gpu tests/train/loop/test_gpu.py \
    tests/train/transfer/test_transfer_gpu.py -rs --durations=5 "${four[@]}"
  tail -n 15 "$OUT/tests.log"
  step steps $((end - SECONDS)) "$PYTHON" benchmarks/steps.py --out "$OUT" $dry \
    --workers "$cores" --limit $((end - SECONDS - 10))
  cat "$OUT/steps.md" 2>/dev/null || tail -n 15 "$OUT/steps.log"
}

measure() {
  end=$((SECONDS + 410))
  local few_rounds=(--rounds 3 --seconds 0.4 --workers "$cores" --limit 230)
  [ -n "$dry" ] && few_rounds=(--tiny --together --rounds 1 --seconds 0 --steps 3 --workers 1)
  step speed 240 "$PYTHON" benchmarks/trainers.py --only "supervised resnet,clip ViT-B-32,clip ViT-S,simclr" \
    "${few_rounds[@]}" --json "$OUT/speed.json" --markdown "$OUT/speed.md"
  cat "$OUT/speed.md" 2>/dev/null || tail -n 15 "$OUT/speed.log"
  local images=${IMAGES:-wheels/tiny-imagenet.tar.xz}
  local left=$((end - SECONDS))
  step methods $left "$PYTHON" benchmarks/methods.py "$images" $dry --classes 40 --seconds $((left / 6)) \
    --limit $((left - 15)) --out "$work/methods" --markdown "$OUT/methods.md"
  cat "$OUT/methods.md" 2>/dev/null || tail -n 15 "$OUT/methods.log"
}

transfer() {
  end=$((SECONDS + 150))
  mkdir -p "$work/tasks"
  for archive in "${TASKS:-wheels/tasks}"/*.tar*; do
    [ -f "$archive" ] && tar xf "$archive" -C "$work/tasks"
  done
  if [ -z "$(ls "$work/tasks")" ]; then
    echo "== transfer: no tasks in ${TASKS:-wheels/tasks}"
    failed=1
    return
  fi
  local how=(--model resnet50 --every 15 --rounds 1)
  [ -n "$dry" ] && how=(--model convnet --pixels 32 --every 60 --rounds 1)
  step transfer 150 "$PYTHON" benchmarks/transfer.py "$work/tasks" "${how[@]}" \
    --markdown "$OUT/transfer.md"
  cat "$OUT/transfer.md" 2>/dev/null || tail -n 15 "$OUT/transfer.log"
}

{
  date -u
  nvidia-smi 2>/dev/null || echo "no nvidia-smi here"
  "$PYTHON" -c 'import sys, torch; print(sys.version); print("torch", torch.__version__, torch.cuda.is_available())'
  nproc
  "$PYTHON" -m pip list 2>/dev/null | grep -iE '^(torch|timm|open_clip|lightly|numpy|pyarrow|duckdb|triton)' || true
} >"$OUT/machine.txt" 2>&1
tail -n 12 "$OUT/machine.txt"
for one in "${parts[@]}"; do $one; done
exit $failed
