#!/usr/bin/env bash
# All that needs a GPU, in one call of under ten minutes: the tests marked gpu, the speed of the trainers beside their
# peers, what three methods learn from Tiny-ImageNet in the same time, and transfer beside a plain loop.
#
#   benchmarks/gpu.sh [--dry] [tests] [speed] [methods] [transfer]     (all four by default)
#
# --dry takes the smallest of everything, and runs without a GPU too. Everything that is worth keeping goes to $OUT (out/gpu
# by default), nine files: machine.txt; tests.log; speed.md, .json, .log; methods.md, .log; transfer.md, .log. Each part has its own time
# limit (TESTS_S, SPEED_S, METHODS_S, TRANSFER_S, in seconds) and log, so one that fails costs nothing of the others. To keep:
# speed.md in docs/results/speed.md, methods.md in docs/results/methods.md.
#
# A machine without a network brings what is missing there in wheels/, which git ignores: packages as wheels/site.tar.xz
# and the images as wheels/tiny-imagenet.tar.xz (85 classes, train/WNID and val/WNID, 33 MiB); tasks as wheels/tasks/*.tar
# or .tar.xz, a folder of class folders each. Where torch, torchvision,
# timm, pyarrow, safetensors, scikit-learn and pytest with hypothesis and timeout are there (Python 3.12), these are
# missing, 20 MiB compressed (as wheels they are 30):
#
#   pip install --target site --no-deps --no-compile --only-binary=:all: --python-version 3.12 --implementation cp \
#     --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
#     --platform manylinux2014_x86_64 \
#     duckdb open_clip_torch ftfy wcwidth regex pydantic pydantic-core annotated-types typing-inspection \
#     typing-extensions simplejpeg webdataset braceexpand lightly
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
    tests | speed | methods | transfer) parts+=("$word") ;;
    *) echo "gpu.sh: no part '$word': there are tests, speed, methods, transfer" >&2; exit 2 ;;
  esac
done
[ ${#parts[@]} -gt 0 ] || parts=(tests speed methods transfer)
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

failed=0
part() { # NAME LIMIT_S COMMAND…: into $OUT/NAME.log
  local name=$1 limit=$2 began=$SECONDS code=0
  shift 2
  timeout -k 15 "$limit" "$@" >"$OUT/$name.log" 2>&1 || code=$?
  [ $code = 0 ] || failed=1
  echo "== $name: exit $code after $((SECONDS - began)) s of at most $limit$([ $code = 124 ] && echo ', out of time')"
}

tests() {
  # -m gpu leaves out all others; a report of what was skipped says when there is no GPU.
  part tests "${TESTS_S:-110}" "$PYTHON" -m pytest -p no:cacheprovider -m gpu tests/train/test_gpu.py \
    tests/transfer/test_transfer_gpu.py -rs --durations=5
  tail -n 15 "$OUT/tests.log"
}

speed() {
  local few=(--rounds 5 --seconds 0.3)
  [ -n "$dry" ] && few=(--tiny --rounds 1 --seconds 0.2 --steps 3 --workers 1)
  part speed "${SPEED_S:-220}" "$PYTHON" benchmarks/trainers.py "${few[@]}" \
    --json "$OUT/speed.json" --markdown "$OUT/speed.md"
  cat "$OUT/speed.md" 2>/dev/null || tail -n 15 "$OUT/speed.log"
}

methods() {
  local images=${IMAGES:-wheels/tiny-imagenet.tar.xz}
  part methods "${METHODS_S:-230}" "$PYTHON" benchmarks/methods.py "$images" $dry \
    --seconds "${METHOD_S:-45}" --out "$work/methods" --markdown "$OUT/methods.md"
  cat "$OUT/methods.md" 2>/dev/null || tail -n 15 "$OUT/methods.log"
}

transfer() {
  mkdir -p "$work/tasks"
  for archive in "${TASKS:-wheels/tasks}"/*.tar*; do
    [ -f "$archive" ] && tar xf "$archive" -C "$work/tasks"
  done
  if [ -z "$(ls "$work/tasks")" ]; then
    echo "== transfer: no tasks in ${TASKS:-wheels/tasks}"
    failed=1
    return
  fi
  local few=(--model resnet50 --every 15 --rounds 1)
  [ -n "$dry" ] && few=(--model convnet --pixels 32 --every 60 --rounds 1)
  part transfer "${TRANSFER_S:-150}" "$PYTHON" benchmarks/transfer.py "$work/tasks" "${few[@]}" \
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
