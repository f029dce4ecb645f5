#!/usr/bin/env bash
# Features of many videos with Slurm: an array of jobs, one a shard, then one job that merges them.
#
#   examples/slurm-array.sh /shared/videos.txt /shared/feats.h5 8 [options of tsp extract ...]
#   SBATCH_OPTIONS="--partition=gpu --time=12:00:00" examples/slurm-array.sh ...
#
# Give a list of videos rather than a folder that still grows: every job has to see the same ones.
# A job that was preempted, ran out of time or failed goes on where it stopped, when it is requeued
# or when the same command is given again.
set -euo pipefail

videos=$1 out=$2 shards=$3
shift 3

if [[ -n ${SLURM_ARRAY_TASK_ID:-} ]]; then
    status=0
    # Slurm's warning before the time limit lets the run commit what is finished.
    tsp extract --videos "$videos" --out "$out" --shard "$SLURM_ARRAY_TASK_ID/$shards" "$@" &
    pid=$!
    trap 'kill -TERM "$pid"' TERM
    wait "$pid" || status=$?
    # The warning ends the first wait, not the run.
    if kill -0 "$pid" 2>/dev/null; then
        status=0
        wait "$pid" || status=$?
    fi
    # 3: done, though some videos failed; the report names them, and merging joins the reports.
    [[ $status -eq 3 ]] && exit 0
    exit "$status"
fi

# One line for each resource that your cluster wants; SBATCH_OPTIONS adds to them or replaces them.
array=$(sbatch --parsable --job-name=tsp --array="1-$shards" --requeue --signal=B:TERM@120 \
    --gpus-per-task=1 --cpus-per-task=8 --mem=32G ${SBATCH_OPTIONS:-} \
    "$0" "$videos" "$out" "$shards" "$@")
name=${out##*/} ending=
[[ $name == ?*.* ]] && ending=.${name##*.}
printf -v merge 'tsp merge %q.shard-*-of-%q%q --out %q' \
    "${out%"$ending"}" "$shards" "$ending" "$out"
sbatch --parsable --job-name=tsp-merge --dependency="afterok:$array" \
    --cpus-per-task=1 --mem=4G ${SBATCH_OPTIONS:-} --wrap "$merge" >/dev/null
echo "Array job $array computes $shards shards; the job after it merges them into $out."
