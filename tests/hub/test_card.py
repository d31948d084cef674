"""The model card and the notebook: valid for the Hub, true to the report, and usable as they stand."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from hf_accel.config.recipe import load_recipe
from hf_accel.data.splits import load_splits
from hf_accel.hub.card import write_card, write_notebook
from hf_accel.hub.card_text import FOLDED_FROM_CLASSES
from hf_accel.hub.examples import write_examples
from hf_accel.hub.notebook import notebook_text
from hf_accel.hub.publication import published_files
from hf_accel.report.finished_run import FinishedRun
from hf_accel.report.page import draw_plots
from hf_accel.tasks.gallery import answered_examples
from hf_accel.tasks.torch_scoring import processed_probabilities
from tests.support.hub_contents import write_run, write_vit_base
from tests.support.tables import unpadded


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def card_of(folder: Path) -> ModelCard:
    return ModelCard.load(write_card(FinishedRun.read(folder)))


def change_report(folder: Path, **sections: dict) -> None:
    report = json.loads((folder / "report.json").read_text())
    for name, values in sections.items():
        report[name] = {**report[name], **values} if isinstance(report[name], dict) and values else values
    (folder / "report.json").write_text(json.dumps(report))


def change_recipe(folder: Path, **sections: dict) -> None:
    load_recipe(folder / "recipe.yaml", overrides=sections).write(folder / "recipe.yaml")


def test_the_metadata_is_what_the_hub_reads(tmp_path):
    data = card_of(write_run(tmp_path / "run")).data
    assert data.library_name == "transformers"
    assert data.pipeline_tag == "image-classification"
    assert data.base_model == "google/vit-tiny"
    assert data.base_model_relation == "finetune"
    assert data.datasets == ["uoft-cs/cifar10"]
    assert data.metrics == ["accuracy", "f1"]
    assert (data.get("widget"), data.get("inference")) == (
        None,
        False,
    )  # the Hub's widget would show a tiger and a teapot
    accuracy, f1 = data.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 0.8)
    assert (f1.metric_type, f1.metric_name, f1.metric_value) == ("f1", "Macro F1", 0.79)
    assert f1.metric_args == {"average": "macro"}
    assert (accuracy.dataset_split, accuracy.dataset_args) == ("test", {"num_rows": 300})


def test_base_model_and_data_set_carry_the_revisions_that_were_downloaded(hub, tmp_path, monkeypatch):
    from huggingface_hub import hf_hub_download

    tiny = {"num_hidden_layers": 1, "hidden_size": 24, "num_attention_heads": 2, "intermediate_size": 32}
    model = hub.add_model("google/vit-tiny", write_vit_base(tmp_path / "base", **tiny))
    (tmp_path / "data").mkdir()
    (tmp_path / "data/README.md").write_text("data")
    data = hub.add_dataset("uoft-cs/cifar10", tmp_path / "data")
    hub.use_here(monkeypatch)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    hf_hub_download("google/vit-tiny", "config.json")
    hf_hub_download("uoft-cs/cifar10", "README.md", repo_type="dataset")
    hub.add_model("google/vit-tiny", tmp_path / "base")  # the Hub moves on

    card = card_of(write_run(tmp_path / "run"))
    assert card.data.base_model_revision == model.oid
    assert card.data.eval_results[0].dataset_revision == data.oid
    assert card.data.license == "apache-2.0"
    assert "Licence: `apache-2.0`, copied from the base model." in card.text
    assert model.oid in card.text


def test_an_unknown_licence_is_left_out_and_the_card_says_so(tmp_path):
    card = card_of(write_run(tmp_path / "run"))
    assert card.data.license is None
    assert "licence was not found, so none is stated" in card.text


def test_a_local_base_model_gives_its_licence_and_only_its_folder_name(tmp_path):
    base = tmp_path / "secret" / "mobilenet"
    base.mkdir(parents=True)
    (base / "config.json").write_text(json.dumps({"pretrained_cfg": {"license": "apache-2.0"}}))
    card = card_of(write_run(tmp_path / "run", model_name=str(base)))
    assert card.data.license == "apache-2.0"
    assert card.data.base_model is None
    assert "`mobilenet`, fine-tuned on" in card.text
    assert "secret" not in card.content


def test_a_model_from_scratch_names_no_base(tmp_path):
    folder = write_run(tmp_path / "run")
    change_recipe(folder, model={"pretrained": False})
    card = card_of(folder)
    assert card.data.base_model is None
    assert card.data.license is None
    assert "trained from scratch, so no licence is inherited" in card.text


@pytest.mark.parametrize("own", [{"architecture": "cifar_resnet20"}, {"model_type": "hf_accel_encoder"}])
def test_the_card_of_our_own_network_says_what_to_import(own, tmp_path):
    folder = write_run(tmp_path / "run")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps(config | own))
    card = card_of(folder)
    assert "import hf_accel.cifar_nets" in card.text
    assert card.data.library_name == "hf_accel"
    assert "import hf_accel.cifar_nets" in write_notebook(FinishedRun.read(folder)).read_text()


def test_every_network_of_this_package_is_known_by_its_name():
    import timm

    import hf_accel.cifar_nets  # noqa: F401

    own = [name for module in ("cifar_resnet", "airbench", "cct") for name in timm.list_models(module=module)]
    assert len(own) == 11
    assert all(name.startswith("cifar_") for name in own)
    assert not [name for name in timm.list_models("cifar_*") if name not in own]


def test_the_figures_of_the_card_are_those_of_the_report(tmp_path):
    text = unpadded(card_of(write_run(tmp_path / "run")).text)
    for line in (
        "| Accuracy | 0.8000 | 0.8100 |",
        "| Micro F1 | 0.8000 | - |",
        "| cat | 0.9000 | 0.8000 | 0.8471 | 100 |",
        "dog taken for cat (18)",
        "| Time, optimisation only | 12.5 s |",
        "| Energy, as the device measured it | 2.00 Wh |",
        "| learning_rate | 0.003 |",
        "0.7511 to 0.8413",
    ):
        assert line in text


def test_a_figure_that_was_not_measured_is_absent_and_never_0(tmp_path):
    folder = write_run(tmp_path / "run")
    change_report(folder, train={"energy_joules": None, "seconds": None}, validation=None)
    text = card_of(folder).text
    assert "Energy" not in text
    assert "Time, optimisation only" not in text
    assert "Nothing was selected" in text


def test_label_names_cannot_break_the_tables(tmp_path):
    folder = write_run(tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    report["test"]["per_class"][0]["label"] = "a|b --- <script>\n`c`"
    (folder / "report.json").write_text(json.dumps(report))
    assert "| a\\|b --- \\<script\\> \\`c\\` | 0.9000 |" in unpadded(card_of(folder).text)


def with_classes(folder: Path, count: int) -> Path:
    """The run, as if its data had this many classes; every class is taken for the next one once."""
    names = [f"class {number}" for number in range(count)]
    scores = {"precision": 0.9, "recall": 0.8, "f1": 0.8471, "support": 10}
    confusion = [
        [9 * (guess == true) + (guess == (true + 1) % count) for guess in range(count)] for true in range(count)
    ]
    per_class = [{"label": name, **scores} for name in names]
    change_report(folder, data={"labels": names}, test={"per_class": per_class, "confusion": confusion})
    return folder


def test_the_table_of_many_classes_is_folded_and_that_of_few_is_not(tmp_path):
    many = FOLDED_FROM_CLASSES + 1
    text = unpadded(card_of(with_classes(write_run(tmp_path / "run"), many)).text)
    fold = text[text.index("<details>") : text.index("</details>")]
    assert fold.startswith(f"<details><summary>{many} classes</summary>\n\n| class |")
    assert fold.count("| class ") == many + 1
    assert f"| class {many - 1} | 0.9000 |" in fold
    # The confusions stay in sight, below the fold.
    assert text.index("class 0 taken for class 1 (1)") > text.index("</details>")
    assert "<details>" not in card_of(with_classes(tmp_path / "run", FOLDED_FROM_CLASSES)).text


def test_a_report_without_a_confusion_matrix_names_no_confusions(tmp_path):
    folder = write_run(tmp_path / "run")
    change_report(folder, test={"confusion": None})
    text = card_of(folder).text
    assert "| cat | 0.9000 |" in unpadded(text)
    assert "confusions" not in text


def test_model_index_names_the_split_that_was_scored(tmp_path, photos):
    folder = write_run(tmp_path / "run")

    def scored(**settings) -> tuple[str, str]:
        found = load_splits(load_recipe("digits", overrides={"data": settings}).data, seed=0).test_split
        change_report(folder, data={"test_split": found})
        return found, card_of(folder).data.eval_results[0].dataset_split

    assert scored(name=str(photos), validation=0.2) == ("test", "test")
    (photos / "test").rename(photos / "val")
    assert scored(name=str(photos), validation=0.2) == ("validation", "validation")
    assert scored(name=str(photos / "train")) == ("train", "train")


def test_the_card_of_a_report_that_does_not_know_its_split_names_none(tmp_path):
    folder = write_run(tmp_path / "run")
    report = json.loads((folder / "report.json").read_text())
    del report["data"]["test_split"]
    (folder / "report.json").write_text(json.dumps(report))
    assert card_of(folder).data.eval_results[0].dataset_split is None


class OneAnswer:
    """Stands for a model: the logits are the mean of each colour, of three or of the first ones."""

    device = "cpu"

    def __init__(self, num_labels: int = 3) -> None:
        self.num_labels = num_labels

    def eval(self) -> None:
        pass

    def __call__(self, pixel_values):
        return type("Output", (), {"logits": pixel_values.mean((2, 3))[:, : self.num_labels]})


def examples_of(split, model, processor):
    return answered_examples(split, processed_probabilities(model, processor))


def test_three_test_images_with_the_models_answers_become_the_widgets_examples(tmp_path):
    from transformers import ViTImageProcessor

    folder = write_run(tmp_path / "run")
    settings = load_recipe("digits").data
    split = load_splits(settings, seed=0).test
    change_recipe(folder, data={"name": "digits"})
    run = FinishedRun.read(folder)
    write_examples(run.folder, run.recipe, examples_of(split, OneAnswer(), ViTImageProcessor()))
    widget = card_of(folder).data.widget
    titles = [example["example_title"] for example in widget]
    assert (titles[0], titles[2]) == ("0", "9")
    assert [example["src"] for example in widget] == ["examples/1.png", "examples/2.png", "examples/3.png"]
    assert [len(example["output"]) for example in widget] == [3, 3, 3]
    assert (folder / "model/examples/1.png").is_file()
    assert "inference" not in card_of(folder).data.to_dict()


def test_no_picture_of_a_local_folder_is_kept_for_the_card(tmp_path, photos):
    folder = write_run(tmp_path / "run", data_name=str(photos))
    split = load_splits(load_recipe("digits", overrides={"data": {"name": str(photos)}}).data, seed=0).test
    run = FinishedRun.read(folder)
    write_examples(run.folder, run.recipe, examples_of(split, OneAnswer(), None))
    assert not (folder / "model" / "examples").exists()
    assert (card_of(folder).data.get("widget"), card_of(folder).data.get("inference")) == (None, False)


def test_pictures_of_a_local_folder_are_kept_when_the_recipe_says_so_and_go_when_it_no_longer_does(tmp_path, photos):
    from transformers import ViTImageProcessor

    folder = write_run(tmp_path / "run", data_name=str(photos))
    split = load_splits(load_recipe("digits", overrides={"data": {"name": str(photos)}}).data, seed=0).test

    def with_setting(examples: bool | None) -> tuple[list[str] | None, set[str]]:
        change_recipe(folder, push={"examples": examples})
        run = FinishedRun.read(folder)
        write_examples(run.folder, run.recipe, examples_of(split, OneAnswer(2), ViTImageProcessor()))
        shown = card_of(folder).data.get("widget")
        files = published_files(run, "jane/model")
        return shown and [example["example_title"] for example in shown], {n for n in files if n.endswith(".png")}

    titles, files = with_setting(True)
    assert set(titles) == set(split.label_names)
    assert files == {f"examples/{number}.png" for number in (1, 2, 3)}
    assert with_setting(None) == (None, set())


def test_examples_that_are_no_longer_to_be_published_are_not(tmp_path):
    folder = write_run(tmp_path / "run")
    (folder / "model" / "examples").mkdir()
    for name, text in (("1.png", "x"), ("examples.json", '[{"src": "examples/1.png", "example_title": "cat"}]')):
        (folder / "model" / "examples" / name).write_text(text)
    assert "examples/1.png" in published_files(FinishedRun.read(folder), "jane/model")
    assert len(card_of(folder).data.widget) == 1
    change_recipe(folder, push={"examples": False})
    assert "examples/1.png" not in published_files(FinishedRun.read(folder), "jane/model")
    assert card_of(folder).data.get("widget") is None


def links(markdown: str) -> set[str]:
    """Paths of pictures and files in a card."""
    return {link for link in re.findall(r"\]\(([^)]+)\)", markdown) if "://" not in link}


def test_the_plots_and_files_of_a_card_are_found_from_its_folder_and_in_the_repository(tmp_path):
    folder = write_run(tmp_path / "run")
    draw_plots(FinishedRun.read(folder).report, folder / "plots")
    write_notebook(FinishedRun.read(folder))
    card = write_card(FinishedRun.read(folder))
    here = links(card.read_text())
    assert {"../plots/confusion.svg", "../report.json", "../recipe.yaml", "notebook.ipynb"} <= here
    assert all((card.parent / link).is_file() for link in here)
    pushed = published_files(FinishedRun.read(folder), "jane/model")
    assert links(pushed["README.md"].decode()) == {link.removeprefix("../") for link in here}
    assert links(pushed["README.md"].decode()) <= set(pushed)


def test_the_card_is_headed_by_model_and_data(tmp_path):
    text = card_of(write_run(tmp_path / "run")).text
    assert text.strip().startswith("# ViT-Tiny on cifar10, 3 classes\n")
    assert "Recipe: digits." in text


def test_the_notebook_is_valid_and_repeats_the_runs_own_test_rows(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    folder = write_run(tmp_path / "run")
    change_recipe(folder, data={"max_test_rows": 50, "label_column": "fine_label"})
    write_notebook(FinishedRun.read(folder))
    notebook = nbformat.read(folder / "model/notebook.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert '--data.name "{DATA}" --data.label_column fine_label --data.max_test_rows 50' in code


@pytest.mark.parametrize("needs_package", [True, False])
@pytest.mark.parametrize("has_examples", [True, False])
def test_every_code_cell_of_the_notebook_is_python_whatever_the_data_is_called(needs_package, has_examples):
    name = 'my "best" pictures\\'
    text = notebook_text(load_recipe("digits"), name, needs_package, local_data=True, has_examples=has_examples)
    sources = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert len(sources) == 5
    trees = [ast.parse(source) for source in sources if not source.startswith("!")]
    assert len(trees) == 3
    values = {node.targets[0].id: node.value for tree in trees for node in tree.body if isinstance(node, ast.Assign)}
    assert ast.literal_eval(values["DATA"]) == name
    assert ("import hf_accel.cifar_nets" in sources[1]) == needs_package
    assert ("examples/1.png" in sources[2]) == has_examples


def test_writing_a_card_and_help_need_no_torch(tmp_path):
    folder = write_run(tmp_path / "run")
    code = (
        "import sys; from hf_accel import push; from hf_accel.hub.card import write_card\n"
        "from hf_accel.report.finished_run import FinishedRun\n"
        "write_card(FinishedRun.read(sys.argv[1])); sys.exit(len({'torch', 'transformers'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
