"""Arguments of Ultralytics' `yolo classify train`, which are those of its `cfg/default.yaml`."""

from hf_accel.config.migration.counterparts import Counterpart as Row

OFF = ("false", "0", "0.0")
OPTIMIZERS = {
    "auto": "--optim adamw_torch",
    "adamw": "--optim adamw_torch",
    "adam": "--optim adamw_torch --weight_decay 0",
    "sgd": "--optim sgd --optim_args momentum=0.937,nesterov=true",
    "musgd": "--optim muon",
    "rmsprop": "--optim rmsprop",
    "adamax": "--optim timm/adamax",
    "nadam": "--optim timm/nadam",
    "radam": "--optim timm/radam",
}


def crop_scale(gain: str) -> str:
    """Ultralytics' `scale: 0.5` crops from half of the area up to all of it.

    >>> crop_scale("0.5")
    '[0.5, 1.0]'
    """
    return f"[{max(1 - float(gain), 0.01):g}, 1.0]"


ULTRALYTICS = (
    Row("data", "--data.name VALUE", "./photos", "the same folder: `train/`, `val/` and `test/` are found"),
    Row("model", example="yolo11n-cls.pt",
        note="YOLO weights cannot be loaded; choose a model of the Hub or of timm, `--model.name timm/efficientnet_b0.ra_in1k`"),
    Row("pretrained", "--model.pretrained true", values=dict.fromkeys(OFF, "--model.pretrained false"),
        note="the default; `--model.name` also takes the folder of a saved model"),
    Row("epochs", "--num_train_epochs VALUE", "10"),
    Row("time", note="`--max_steps N` ends a run after N steps"),
    Row("patience", "--early_stopping_patience VALUE", "5", "needs `--data.validation` above 0"),
    Row("batch", "--per_device_train_batch_size VALUE", "64", "-1: `--auto_find_batch_size true`",
        values={"-1": "--auto_find_batch_size true"}),
    Row("nbs", note="`--gradient_accumulation_steps N` trains with N batches per step"),
    Row("imgsz", "--data.image_size VALUE", "224"),
    Row("multi_scale rect", note="`--data.progressive_resizing '{start: 128}'` has images that grow; batches are square"),
    Row("save", "--save_strategy epoch", values=dict.fromkeys(OFF, "--save_strategy no"), note="the default"),
    Row("save_period", "--save_strategy epoch", "1", "or `--save_strategy steps --save_steps N`"),
    Row("cache", "--data.cache memory", "ram", "the default",
        values={"disk": "--data.cache disk", **dict.fromkeys(OFF, "--data.cache none")}),
    Row("device", example="cpu", values={"cpu": "--use_cpu true"},
        note="an accelerator is used if there is one; CUDA_VISIBLE_DEVICES=0 chooses it, and `accelerate launch -m "
        "hf_accel.train` uses several"),
    Row("workers", "--dataloader_num_workers VALUE", "4", "rarely needed: images are decoded once"),
    Row("name", "--output_dir outputs/VALUE", "second", "the whole path; `--project` here names a project of Trackio"),
    Row("exist_ok", "--overwrite"),
    Row("resume", note="repeat the command: it resumes an interrupted run; `--resume_from_checkpoint true` with more epochs "
        "trains a finished one longer"),
    Row("optimizer", "--optim VALUE", "AdamW", values=OPTIMIZERS),
    Row("lr0", "--learning_rate VALUE", "1e-3", "a rate for SGD is too high for AdamW, the default optimizer"),
    Row("lrf", "--lr_scheduler_type cosine_with_min_lr --lr_scheduler_kwargs '{min_lr_rate: VALUE}'", "0.01"),
    Row("cos_lr", "--lr_scheduler_type cosine", values=dict.fromkeys(OFF, "--lr_scheduler_type linear")),
    Row("momentum", "--optim sgd --optim_args momentum=VALUE", "0.937", "for AdamW, `--adam_beta1`"),
    Row("warmup_epochs", "--warmup_steps 0.1", "3", "below 1, a share of all steps: warm-up epochs / epochs"),
    Row("warmup_momentum warmup_bias_lr", note="the warm-up raises the learning rate alone, from 0"),
    Row("amp", "--bf16 auto", values=dict.fromkeys(OFF, "--bf16 false"),
        note="bf16, fp16 or fp32, whichever the device is fast at; it is the default of the recipes"),
    Row("half int8", note="a model is saved in fp32"),
    Row("compile", "--torch_compile true", values=dict.fromkeys(OFF, "--torch_compile false")),
    Row("fraction", note="`--data.max_train_rows N` takes N rows, drawn by class"),
    Row("freeze", "--model.freeze VALUE", "4", "the stem and that many layers after it"),
    Row("dropout", "--model.dropout VALUE", "0.2", "for timm models"),
    Row("cls_pw", "--data.class_weights balanced", "1.0"),
    Row("label_smoothing", "--label_smoothing_factor VALUE", "0.1"),
    Row("deterministic", "--full_determinism true", values=dict.fromkeys(OFF, "--full_determinism false")),
    Row("val", "--eval_strategy epoch", values=dict.fromkeys(OFF, "--eval_strategy no"), note="the default"),
    Row("split", note="`hf-accel evaluate RUN --split validation`"),
    Row("plots", note="every run writes `report.html` and `plots/`"),
    Row("auto_augment", example="randaugment",
        values={"randaugment": "--data.augment.randaugment '{}'", "autoaugment": "", "augmix": "--data.augment.augmix '{}'"}),
    Row("erasing", "--data.augment.random_erasing VALUE", "0.4"),
    Row("scale", "--data.augment.crop random_resized --data.augment.scale 'VALUE'", "0.5", convert=crop_scale),
    Row("fliplr", "--data.augment.flip true", "0.5", "with probability 0.5",
        values=dict.fromkeys(OFF, "--data.augment.flip false")),
    Row("degrees", "--data.augment.rotation.degrees VALUE", "10"),
    Row("translate", "--data.augment.affine.translate '[VALUE, VALUE]'", "0.1"),
    Row("shear", "--data.augment.affine.shear VALUE", "10"),
    Row("hsv_h", "--data.augment.color_jitter.hue VALUE", "0.015"),
    Row("hsv_s", "--data.augment.color_jitter.saturation VALUE", "0.7"),
    Row("hsv_v", "--data.augment.color_jitter.brightness VALUE", "0.4"),
    Row("mixup", "--data.augment.mixup 0.2", "1.0", "the setting is alpha of the Beta distribution, not a probability"),
    Row("cutmix", "--data.augment.cutmix 1.0", "1.0", "the setting is alpha of the Beta distribution, not a probability"),
    Row("perspective flipud bgr mosaic close_mosaic copy_paste copy_paste_mode",
        note="`data.augment` has crops, warps, changes of colour, policies and mixtures of images: see docs/recipe.md"),
    Row("single_cls classes", note="the classes are the folders; leave out those that are not wanted"),
    Row("augment", "--data.test_time_augmentation flip"),
    Row("source", note="`hf-accel predict RUN FILES` classifies images"),
    Row("cfg", "--recipe VALUE", "mine.yaml", "a recipe; a YAML file of Ultralytics is not one"),
    Row("task mode", note="`train`, `evaluate` and `predict` are commands; the task is image classification, or that of "
        "`--model.task`"),
    Row("verbose", "--log_level info", values=dict.fromkeys(OFF, "--log_level warning")),
    Row("show save_txt save_conf save_crop format", note="`hf-accel predict RUN FILES --format csv` writes predictions"),
    Row("profile", note="every report has images/s, the median step and the share of time that waited for data"),
)  # fmt: skip
