"""Flags of the Hugging Face examples `run_image_classification.py` and `run_image_classification_no_trainer.py`.

Those that TrainingArguments has today are flags here under the same names; the table has the others, and those that
TrainingArguments had before transformers 5.
"""

from hf_accel.config.migration.counterparts import Counterpart as Row

NOT_NEEDED = "it is not needed here"

HF_EXAMPLE = (
    Row("model_name_or_path", "--model.name VALUE", "google/vit-base-patch16-224-in21k"),
    Row("model_type config_name", note="`--model.name` names the architecture; `--model.pretrained false` starts from scratch"),
    Row("model_revision", "--model.revision VALUE", "main"),
    Row("image_processor_name feature_extractor_name", note="the model's own preprocessing is used and saved with it"),
    Row("ignore_mismatched_sizes",
        note="leave it out: a head for other classes is replaced, and any other tensor of another shape is refused"),
    Row("trust_remote_code", note="leave it out: code from the Hub is never run"),
    Row("cache_dir", note="the variable HF_HOME names the folder of downloads; `--data.cache_dir` that of `data.cache: disk`"),
    Row("token use_auth_token", note="log in with `hf auth login`, or set the variable HF_TOKEN"),
    Row("dataset_name", "--data.name VALUE", "uoft-cs/cifar10"),
    Row("dataset_config_name", "--data.config VALUE", "default"),
    Row("train_dir", "--data.name VALUE", "./photos",
        "or the folder above it, in which `train`, `validation` and `test` are found by their names"),
    Row("validation_dir", note="put it next to the training folder, as `photos/train` and `photos/validation`, and name the "
        "folder above: `--data.name ./photos`"),
    Row("train_val_split", "--data.validation VALUE", "0.15"),
    Row("max_train_samples", "--data.max_train_rows VALUE", "1000", "rows are drawn by class"),
    Row("max_eval_samples", "--data.max_test_rows VALUE", "500", "of the test rows"),
    Row("image_column_name", "--data.image_column VALUE", "image"),
    Row("label_column_name", "--data.label_column VALUE", "label"),
    Row("overwrite_output_dir", "--overwrite"),
    # run_image_classification_no_trainer.py
    Row("max_train_steps", "--max_steps VALUE", "1000"),
    Row("num_warmup_steps", "--warmup_steps VALUE", "100"),
    Row("checkpointing_steps", "--save_strategy steps --save_steps VALUE", "500",
        values={"epoch": "--save_strategy epoch"}),
    Row("with_tracking", "--report_to tensorboard", note="or wandb, trackio...: any that transformers knows"),
    # TrainingArguments before transformers 5
    Row("evaluation_strategy", "--eval_strategy VALUE", "epoch"),
    Row("warmup_ratio", "--warmup_steps VALUE", "0.1", "below 1, it is a share of all steps"),
    Row("no_cuda", "--use_cpu true"),
    Row("per_gpu_train_batch_size", "--per_device_train_batch_size VALUE", "32"),
    Row("per_gpu_eval_batch_size", "--per_device_eval_batch_size VALUE", "64"),
    Row("adafactor", "--optim adafactor"),
    Row("torchdynamo", "--torch_compile true --torch_compile_backend VALUE", "inductor"),
    Row("fp16_opt_level fp16_backend half_precision_backend", note="`--bf16 auto` chooses what the device is fast at"),
    Row("sharded_ddp fsdp_min_num_params fsdp_transformer_layer_cls_to_wrap",
        note="`--fsdp` and `--fsdp_config` under `accelerate launch`"),
    Row("split_batches", "--accelerator_config '{split_batches: true}'"),
    Row("dispatch_batches", note="each process reads its own batches"),
    Row("logging_dir", note="the variable TENSORBOARD_LOGGING_DIR names the folder; default: `runs/` in the run's folder"),
    Row("push_to_hub_model_id", "--push_to_hub true --hub_model_id VALUE", "me/photos"),
    Row("push_to_hub_organization", note="`--push_to_hub true --hub_model_id ORGANIZATION/NAME`"),
    Row("push_to_hub_token", note="log in with `hf auth login`, or set the variable HF_TOKEN"),
    Row("use_mps_device xpu_backend use_ipex jit_mode_eval tpu_num_cores tpu_metrics_debug mp_parameters ray_scope",
        note="an accelerator is used if there is one; `--use_cpu true` does without"),
    Row("save_safetensors past_index group_by_length fp16_full_eval_dtype include_inputs_for_metrics "
        "include_tokens_per_second torchdynamo_backend", note=NOT_NEEDED),
)  # fmt: skip
