#!/bin/bash
# Four machines with 8 GPUs each, one task per machine, which starts the processes of its GPUs:
#   sbatch recipes/accelerate/slurm.sh --recipe resnet50_imagenet
# Two minutes before the time limit the run is told to save a checkpoint; the job queues again and resumes from it.
#SBATCH --nodes=4 --ntasks-per-node=1 --gpus-per-node=8 --cpus-per-task=96
#SBATCH --time=04:00:00 --requeue --open-mode=append --signal=B:TERM@120

HOST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export HOST OMP_NUM_THREADS=1

srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --config_file recipes/accelerate/multi_node.yaml \
  --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * 8)) --machine_rank "$SLURM_NODEID" \
  --main_process_ip "$HOST" -m hf_accel.train "$@"' launch "$@" &
run=$!
stopped=
trap 'stopped=yes; kill -TERM $run' TERM  # srun sends it to the launchers, and they to the processes
wait $run || wait $run  # the trap ends the first one
code=$?
[ -n "$stopped" ] && scontrol requeue "$SLURM_JOB_ID"
exit $code
