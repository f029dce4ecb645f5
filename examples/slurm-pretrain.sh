#!/usr/bin/env bash
# Pretraining on the GPUs of one node with Slurm; the job resumes by itself.
#
#   examples/slurm-pretrain.sh 4 --videos /shared/videos/ --train t.csv --valid v.csv --out /shared/run/ ...
#   SBATCH_OPTIONS="--partition=gpu --time=24:00:00" examples/slurm-pretrain.sh 4 ...
#
# The first argument is the number of GPUs, the others are those of `tsp pretrain`. A job that was
# preempted or ran out of time stores where it stands, and is resumed when it is requeued or when the
# same command is given again.
set -euo pipefail

gpus=$1
shift

if [[ -n ${SLURM_JOB_ID:-} ]]; then
    # Slurm warns two minutes before the time limit; the run stores its state and ends.
    # The warning may come at any time, even before the run has started.
    pid= warned= early=
    trap 'warned=1; if [[ -n $pid ]]; then kill -TERM "$pid"; else early=1; fi' TERM
    tsp pretrain "$@" --gpus "$gpus" --resume &
    pid=$!
    [[ -z $early ]] || kill -TERM "$pid"
    status=0
    wait "$pid" || status=$?
    # The warning ends the first wait, not the run.
    if kill -0 "$pid" 2>/dev/null; then
        status=0
        wait "$pid" || status=$?
    fi
    [[ -n $warned && $status -ne 0 ]] && scontrol requeue "$SLURM_JOB_ID"
    exit "$status"
fi

# One line for each resource that your cluster wants; SBATCH_OPTIONS adds to them or replaces them.
sbatch --job-name=tsp-pretrain --nodes=1 --ntasks=1 --requeue --signal=B:TERM@120 \
    --gpus="$gpus" --cpus-per-task="$((8 * gpus))" --mem="$((32 * gpus))G" ${SBATCH_OPTIONS:-} \
    "$0" "$gpus" "$@"
