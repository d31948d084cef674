"""An exported folder in transformers.js and in optimum: the classes and the probabilities of `hf-accel predict`.

Both are outside this package's environment, and variables name them. `HF_ACCEL_TRANSFORMERS_JS` is a folder in which
`npm install @huggingface/transformers` was run, `HF_ACCEL_OPTIMUM` the Python of an environment with optimum-onnx, which needs
an earlier transformers than this package.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from transformers import ViTConfig, ViTImageProcessor

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from hf_accel.compression.export import recorded_preprocessing, write_configuration, write_onnx
from hf_accel.predict import main as predict_main
from hf_accel.tasks import TASKS
from tests.support.saved_models import save_hub, save_timm

pytestmark = pytest.mark.slow

NODE_MODULES, OPTIMUM = os.environ.get("HF_ACCEL_TRANSFORMERS_JS"), os.environ.get("HF_ACCEL_OPTIMUM")
JAVASCRIPT = """
const { createRequire } = require('node:module');
const [place, models, name, ...images] = process.argv.slice(2);
const { env, pipeline } = createRequire(place + '/')('@huggingface/transformers');
env.allowRemoteModels = false;
env.localModelPath = models + '/';
(async () => {
  const classify = await pipeline('image-classification', name, { dtype: 'fp32' });
  const answers = [];
  for (const image of images) answers.push(await classify(image, { top_k: 10 }));
  console.log(JSON.stringify(answers));
})();
"""
PYTHON = """
import json, sys
from optimum.onnxruntime import ORTModelForImageClassification
from transformers import AutoImageProcessor, pipeline
model = ORTModelForImageClassification.from_pretrained(sys.argv[1])
processor = AutoImageProcessor.from_pretrained(sys.argv[1])
classify = pipeline("image-classification", model=model, image_processor=processor)
print(json.dumps([classify(image, top_k=10) for image in sys.argv[2:]]))
"""
LABELS = ["cat", "dog", "frog"]


@pytest.fixture(scope="module", params=["vit", "timm"])
def exported(request, tmp_path_factory) -> Path:
    """An exported folder of a type that transformers.js knows, and of one that it does not."""
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "vit":
        config = ViTConfig(image_size=32, patch_size=8, hidden_size=24, num_hidden_layers=1, num_attention_heads=2)
        save_hub(place / "model", config, LABELS)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(place / "model")
    else:
        save_timm(place / "model", "test_resnet", LABELS)
    loaded = TASKS["image-classification"].load_trained(place / "model")
    preprocessing, _ = recorded_preprocessing(loaded)
    write_onnx(loaded, preprocessing, place / "exported")
    write_configuration(loaded, preprocessing, place / "exported")
    return place / "exported"


@pytest.fixture
def images(tmp_path) -> list[str]:
    """Images of the model's own size: libraries resize differently, and here nothing is resized."""
    files = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, file in enumerate(files):
        pixels = np.random.default_rng(number).integers(0, 64 * (number + 1), (32, 32, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(file)
    return files


def require_same_answers(answers: str, exported: Path, images: list[str], capsys) -> None:
    """Compare JSON of [[{label, score}, ...] per image] with what `hf-accel predict` says."""
    capsys.readouterr()
    assert predict_main([str(exported), *images, "--probabilities", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert np.ptp([list(row["probabilities"].values()) for row in expected]) > 0.05, "the answers are all alike"
    for answer, row in zip(json.loads(answers), expected, strict=True):
        assert answer[0]["label"] == row["predicted"]
        assert {item["label"]: item["score"] for item in answer} == pytest.approx(row["probabilities"], abs=1e-4)


@pytest.mark.skipif(not (NODE_MODULES and shutil.which("node")), reason="needs node and HF_ACCEL_TRANSFORMERS_JS")
def test_transformers_js_gives_the_same_probabilities(exported, images, tmp_path, capsys):
    (tmp_path / "classify.cjs").write_text(JAVASCRIPT)
    words = [NODE_MODULES, exported.parent, exported.name, *images]
    done = subprocess.run(["node", tmp_path / "classify.cjs", *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    require_same_answers(done.stdout, exported, images, capsys)


@pytest.mark.skipif(not OPTIMUM, reason="needs HF_ACCEL_OPTIMUM, the Python of an environment with optimum-onnx")
def test_optimum_gives_the_same_probabilities(exported, images, capsys):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [OPTIMUM, "-c", PYTHON, str(exported), *images]
    done = subprocess.run(command, capture_output=True, text=True, env={**variables, "HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    require_same_answers(done.stdout.splitlines()[-1], exported, images, capsys)
