#!/usr/bin/env bash
# The first minutes or hour on a GPU: proves the machine, measures it, and then trains Figure 4, or
# what is named.
#
#   scripts/gpu_first_hour.sh MINUTES [EXPERIMENTS AND OPTIONS OF `python -m lc sweep`]
#
# Rows, speed and logs go to the folder $OUT, by default build/first-hour, and into
# first-hour.tar.gz beside it, of at most 16 MB. To keep the rows: unpack it in a folder and
# `python -m lc merge FOLDER/results`. The environment may set PYTHON, LC_DATA_DIR, LC_GIT (the
# commit, where there is no .git), and BENCHMARK, the options of `lc benchmark`.
set -uo pipefail

minutes=${1:?usage: $0 MINUTES [OPTIONS OF lc sweep]}
shift
[ $# -gt 0 ] || set -- figure4
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
OUT=${OUT:-build/first-hour}
BENCHMARK=${BENCHMARK:---seconds 0.5}
mkdir -p "$OUT"
export LC_RESULTS_DIR=$(cd "$OUT" && pwd)/results PYTHONUNBUFFERED=1

left() { echo $((60 * minutes - SECONDS)); }  # seconds

stage() {  # LOG SECONDS COMMAND...: told to end after the seconds, and killed 30 seconds later
    local log=$OUT/$1.log limit=$2
    shift 2
    echo "== $* ($limit s at most)" | tee -a "$log"
    # in the foreground, so that Ctrl-C reaches the command; tee goes on until it has ended
    timeout --foreground --signal=TERM --kill-after=30 "$limit" "$@" 2>&1 | tee -i -a "$log"
}

pack() {  # all but checkpoints; without the filters if they made it too large
    cd "$OUT" || return
    local kept
    for exclude in nothing filters; do
        kept=$(ls -d results/runs.csv results/speed.csv results/filters ./*.log 2> /dev/null)
        tar --exclude="$exclude" -czf ../first-hour.tar.gz $kept
        [ "$(wc -c < ../first-hour.tar.gz)" -gt 16000000 ] || break
    done
    echo "$(cd .. && pwd)/first-hour.tar.gz: $(wc -c < ../first-hour.tar.gz) bytes"
}
trap pack EXIT
trap 'exit 130' INT TERM

stage doctor 120 "$PYTHON" -m lc doctor || exit 1
stage benchmark $(($(left) / 3)) "$PYTHON" -m lc benchmark $BENCHMARK ||
    echo "the benchmark failed; the training goes on"
options=$(sed -n 's/^most images a second: lc sweep //p' "$OUT/benchmark.log" | tail -n 1)

train() {  # OPTIONS...: ends 20 seconds early, for evaluations and the archive
    local seconds=$(($(left) - 20))
    [ $seconds -gt 0 ] || return 0
    stage sweep $((seconds + 15)) "$PYTHON" -m lc sweep "$@" \
        --time-limit "$(awk "BEGIN {print $seconds / 60}")"
}
train "$@" $options || { [ -n "$options" ] && train "$@"; }
