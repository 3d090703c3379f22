#!/usr/bin/env bash
# Everything worth measuring on a GPU machine, in one go, with or without a network:
#
#   runs/benchmarks/gpu_bench.sh OUT                     # a table of speeds, then Montezuma's Revenge for MINUTES
#   MINUTES=9 runs/benchmarks/gpu_bench.sh OUT           # the same OUT again: the table is kept, the training goes on from its checkpoint
#   WHEELS=FOLDER runs/benchmarks/gpu_bench.sh OUT       # no network: take envpool, ale_py, gymnasium, tyro, ... from wheels in FOLDER
#
# Wheels for that: envpool ale_py gymnasium farama_notifications cloudpickle optree dm_env tyro docstring_parser typeguard
# attrs tqdm; with imageio_ffmpeg there is a video, with matplotlib and its own a report.
#
# PYTHON (python3) runs it; PRESET (atari) and OPTIONS ("--env.num-envs 64") choose the run, GAME its game, SECONDS_EACH (10)
# how long each speed is measured, SWITCHES (1) whether bfloat16, compiled encoders and two actor threads are measured, too.
set -euo pipefail
out=$(mkdir -p "${1:?usage: runs/benchmarks/gpu_bench.sh OUT}" && cd "$1" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python3} preset=${PRESET:-atari} game=${GAME:-MontezumaRevenge} each=${SECONDS_EACH:-10} minutes=${MINUTES:-8}
read -ra options <<< "${OPTIONS:-}"

# The rooms under their import name, without installing: editable installs need a network.
mkdir -p "$out/path/afterwit"
for room in envs world_models agents runs; do ln -sfn "$root/$room" "$out/path/afterwit/$room"; done
export PYTHONPATH="$out/path${PYTHONPATH:+:$PYTHONPATH}"

if [ -n "${WHEELS:-}" ]; then
  [ -d "$out/site" ] || "$python" -m pip install --quiet --no-index --no-deps --target "$out/site" "$WHEELS"/*.whl
  # EnvPool's asset package is too large to carry; Atari needs no more of it than the ROMs, which ale_py has.
  mkdir -p "$out/assets/atari" "$out/hook"
  ln -sfn "$out/site/ale_py/roms" "$out/assets/atari/roms"
  cat > "$out/hook/sitecustomize.py" << 'HOOK'
import sys, types
sys.modules["envpool.entry"] = types.ModuleType("envpool.entry")  # it registers every world, and needs their assets
HOOK
  export ENVPOOL_ASSETS_PATH="$out/assets" PYTHONPATH="$out/hook:$PYTHONPATH:$out/site"
fi
afterwit() { "$python" -m afterwit.runs "$@"; }

measure() {  # NAME OPTIONS...: a table and its numbers, unless they are there
  local name=$1
  shift
  [ -s "$out/$name.json" ] && return
  echo "measuring: $name"
  afterwit benchmark "$preset" --game "$game" "${options[@]}" "$@" --seconds "$each" --out "$out/$name.json" > "$out/$name.txt"
  cat "$out/$name.txt"
}

"$python" -c 'import platform, torch; print(platform.python_version(), torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")' | tee "$out/machine.txt"
measure speed --grow --baseline
if [ "${SWITCHES:-1}" = 1 ]; then
  measure speed-bfloat16 --learner.torso.bfloat16
  measure speed-compile --compile
  measure speed-both --compile --learner.torso.bfloat16
  measure speed-actors --actor-envs "$("$python" -c "import json, sys; print(json.load(open(sys.argv[1]))['config']['env']['num_envs'] // 2)" "$out/speed.json")" || echo "not measured: two actor threads"
fi

run="$out/$game"
train=(train "$preset" --game "$game" "${options[@]}" --out "$run")
[ -e "$run/checkpoint.pt" ] && train=(train --resume "$run")
echo "training for $minutes minutes: afterwit ${train[*]}"
# Ctrl-C to ourselves: training saves, and the same command goes on where it stopped.
timeout --signal=INT --kill-after=60 "$((minutes * 60))" "$python" -m afterwit.runs "${train[@]}" --quiet || [ $? -eq 124 ] || [ $? -eq 130 ]
has() { "$python" -c "import $1" 2> /dev/null; }
afterwit evaluate "$run" --episodes "${EPISODES:-20}" $(has imageio_ffmpeg && echo --video) | tee "$out/evaluation.txt"
if has matplotlib; then afterwit report "$run" --out "$out/report"; fi
