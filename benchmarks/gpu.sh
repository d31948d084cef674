#!/usr/bin/env bash
# One stage of the measurements on a GPU, at most 9 minutes a call. Finished measurements are skipped: call it again until
# it says that nothing is left. Tables go to benchmarks/results/STAGE_DEVICE_DATE.md.
#
#   benchmarks/gpu.sh speed | accuracy | compare | zoo | compact | tune
#   benchmarks/gpu.sh pack FOLDER        the data for an upload, in two parts below 64 MiB
#
# HF_ACCEL_DATA    folder with cifar10/ and hymenoptera/ (default: shared/data beside the repository)
# TIMM             a checkout of huggingface/pytorch-image-models, to be compared with as well
# PYTHON           default: python3
# GPU_MINUTES      default: 9
# GPU_REHEARSAL=1  everything in small, on the CPU
set -euo pipefail
cd "$(dirname "$0")/.."

stage=${1:-}
python=${PYTHON:-python3}
small=()
if [[ ${GPU_REHEARSAL:-0} == 1 ]]; then
  small=(--quick --pairs 1)
  export CUDA_VISIBLE_DEVICES=
fi
cut=0

limit=$(awk "BEGIN { print int(60 * ${GPU_MINUTES:-9}) - 10 }") # what is left of it writes the table
seconds_left() { echo $((limit - SECONDS)); }

# Run a benchmark in the time that is left; a failing one leaves the others their turn.
bench() {
  local name=$1
  shift
  if (($(seconds_left) < 20)); then
    cut=1
    echo "no time left for: $name $*"
    return
  fi
  local minutes
  minutes=$(awk "BEGIN { print $(seconds_left) / 60 }")
  "$python" -m "benchmarks.$name" --stage "$stage" --resume --minutes "$minutes" ${small[@]+"${small[@]}"} "$@" ||
    echo "failed: $name $*"
}

pack() {
  local data=${HF_ACCEL_DATA:-../shared/data} folder=${1:?usage: gpu.sh pack FOLDER}
  mkdir -p "$folder"/{1,2}/cifar10/data
  cp "$data"/cifar10/data/{train-0000[01],test}-*.parquet "$folder/1/cifar10/data/"
  cp "$data"/cifar10/data/train-0000[23]-*.parquet "$folder/2/cifar10/data/"
  cp -r "$data/hymenoptera" "$folder/2/"
  du -sm "$folder"/{1,2}
  echo "there: cp -r $folder/1/. $folder/2/. DATA/ && export HF_ACCEL_DATA=DATA"
}

case $stage in
  speed)
    models=(timm/vit_base_patch16_224 timm/resnet50 timm/efficientnet_b0)
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && models=(timm/test_resnet)
    bench ceiling --model "${models[@]}"
    bench overhead
    bench inputs
    bench peers --model "${models[@]}" ${TIMM:+--timm "$TIMM"}
    ;;
  accuracy)
    # the paper's network first, three seeds; then what is short, five
    three=(--pairs 3) five=(--pairs 5)
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && three=() five=()
    bench accuracy --recipe resnet50_cifar10_scratch ${three[@]+"${three[@]}"}
    bench accuracy --recipe speedrun_cifar10_94 speedrun_cifar10_96 resnet20_cifar10 ${five[@]+"${five[@]}"}
    ;;
  compare)
    # variants that do nothing on CUDA are left out
    variants=(baseline fp16 bf16 channels_last cached device_transforms pin compile fused_optimizer checkpointing all default)
    short=(--variants "${variants[@]}" --pairs 3 --max_steps 60)
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && short=()
    bench compare --recipe resnet50_cifar10_scratch ${short[@]+"${short[@]}"}
    bench compare --recipe vit_cifar10 --model.name timm/vit_base_patch16_224 --model.pretrained false ${short[@]+"${short[@]}"}
    bench compare --recipe efficientnet_b0_cifar10 --model.pretrained false ${short[@]+"${short[@]}"}
    ;;
  zoo)
    # from scratch on complete CIFAR-10, one seed; a network that was interrupted is resumed by the next call
    some=()
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && some=(--network resnet18 vit_tiny)
    bench zoo --complete ${some[@]+"${some[@]}"}
    ;;
  compact)
    # pruned while they train, three seeds, then int8; 2:4 sparsity on the linear layers of a ViT
    three=(--pairs 3)
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && three=()
    bench compact --complete ${three[@]+"${three[@]}"}
    ;;
  tune)
    # a search of five minutes each, against every combination of the same techniques
    some=(--network vit_tiny resnet50 efficientnet_b0 --budget 5m)
    [[ ${GPU_REHEARSAL:-0} == 1 ]] && some=(--network resnet20)
    bench tune "${some[@]}"
    ;;
  pack)
    shift
    pack "$@"
    exit
    ;;
  *)
    sed -n '2,13s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
if ((cut)); then echo "$stage: not finished, call it again"; fi
