"""Names that many training scripts have for the same things."""

from hf_accel.config.migration.counterparts import Counterpart as Row
from hf_accel.config.migration.counterparts import last_number
from hf_accel.config.migration.from_timm import OPTIMIZERS, SCHEDULES

ONE_FOLDER = (
    "put the folders next to each other, as `photos/train` and `photos/test`, and name the one above: `--data.name`"
)

OTHERS = (
    Row("num_epochs n_epochs epoch max_epochs", "--num_train_epochs VALUE", "10"),
    Row("base_learning_rate init_lr", "--learning_rate VALUE", "1e-3"),
    Row("batch_size train_batch_size bsz", "--per_device_train_batch_size VALUE", "32"),
    Row("eval_batch_size val_batch_size test_batch_size", "--per_device_eval_batch_size VALUE", "64"),
    Row("accum_iter accumulate_grad_batches grad_accum gradient_accumulation accumulation_steps",
        "--gradient_accumulation_steps VALUE", "4"),
    Row("optimizer", "--optim VALUE", "adamw", values=OPTIMIZERS),
    Row("scheduler lr_scheduler schedule", "--lr_scheduler_type VALUE", "cosine", values=SCHEDULES),
    Row("warmup", "--warmup_steps VALUE", "0.1", "below 1, a share of all steps"),
    Row("wd l2", "--weight_decay VALUE", "0.02"),
    Row("grad_clip clip_grad_norm gradient_clip_val max_norm clip", "--max_grad_norm VALUE", "1.0"),
    Row("label_smoothing ls", "--label_smoothing_factor VALUE", "0.1"),
    Row("early_stopping early_stop", "--early_stopping_patience VALUE", "3", "needs `--data.validation` above 0"),
    Row("steps num_steps total_steps max_iter", "--max_steps VALUE", "1000"),
    Row("dataset data_path data_root root image_dir images imagefolder", "--data.name VALUE", "./photos"),
    Row("test_dir val_dir valid_dir eval_dir", note=ONE_FOLDER),
    Row("val_split validation_split val_ratio val_size", "--data.validation VALUE", "0.1"),
    Row("image_size img_size resolution crop_size input_resolution", "--data.image_size VALUE", "224", convert=last_number),
    Row("balanced weighted_loss class_weight", "--data.class_weights balanced"),
    Row("weights checkpoint ckpt model_path backbone", "--model.name VALUE", "google/vit-base-patch16-224-in21k",
        "a model of the Hub, of timm, or a saved folder"),
    Row("from_scratch no_pretrained", "--model.pretrained false"),
    Row("freeze_backbone freeze_layers linear_probe", note="all layers are trained"),
    Row("freeze_bn", "--model.freeze_batch_norm true"),
    Row("random_erase", "--data.augment.random_erasing VALUE", "0.25"),
    Row("rand_aug rand_augment ra", "--data.augment.randaugment '{}'"),
    Row("mixup_alpha", "--data.augment.mixup VALUE", "0.2"),
    Row("cutmix_alpha", "--data.augment.cutmix VALUE", "1.0"),
    Row("cpu cpu_only", "--use_cpu true"),
    Row("gpu gpus gpu_id gpu_ids cuda devices n_gpu",
        note="an accelerator is used if there is one; CUDA_VISIBLE_DEVICES chooses which, and `accelerate launch -m "
        "hf_accel.train` uses several"),
    Row("mixed_precision precision dtype", "--bf16 auto", "bf16",
        values={"bf16": "--bf16 true", "bf16-mixed": "--bf16 true", "bfloat16": "--bf16 true", "fp16": "--fp16 true",
                "16": "--fp16 true", "16-mixed": "--fp16 true", "float16": "--fp16 true", "no": "--bf16 false",
                "32": "--bf16 false", "fp32": "--bf16 false", "float32": "--bf16 false"}),
    Row("fp32 no_amp", "--bf16 false"),
    Row("checkpoint_activations", "--gradient_checkpointing true"),
    Row("num_workers n_workers nw", "--dataloader_num_workers VALUE", "4", "rarely needed: images are decoded once"),
    Row("out output_path out_dir outdir save_dir save_path log_dir logdir", "--output_dir VALUE", "outputs/photos/second"),
    Row("overwrite_output force", "--overwrite"),
    Row("wandb use_wandb", "--report_to wandb"),
    Row("tensorboard tb use_tensorboard", "--report_to tensorboard"),
    Row("mlflow", "--report_to mlflow"),
    Row("wandb_entity wandb_name wandb_run_name", note="`--run_name` with `--report_to wandb`; the rest are variables, WANDB_*"),
    Row("verbose v", "--log_level info"),
    Row("silent q no_progress", "--quiet"),
    Row("log_every print_freq log_freq log_steps", "--logging_steps VALUE", "50"),
    Row("eval_every eval_freq eval_interval val_every", "--eval_strategy steps --eval_steps VALUE", "200"),
    Row("save_every save_freq save_interval ckpt_every", "--save_strategy steps --save_steps VALUE", "200"),
    Row("manual_seed random_seed", "--seed VALUE", "0"),
    Row("eval evaluate test eval_only", note="`hf-accel evaluate RUN` scores a trained model"),
    Row("world_size dist_url dist_backend nproc_per_node num_processes",
        note="`accelerate launch --num_processes N -m hf_accel.train` starts the processes"),
    Row("compile", "--torch_compile true"),
    Row("ema use_ema ema_decay", note="there is no moving average of the weights; the best epoch by validation accuracy is kept"),
)  # fmt: skip
