import json
import re
from pathlib import Path

import jsonschema
import pytest

from hf_accel.config.domains import OF_IMAGES, OF_TEXTS
from hf_accel.config.recipe import LAUNCH_FILES, RECIPES_FOLDER, load_recipe, shipped_recipes, variant_names
from hf_accel.config.reference import recipe_reference
from hf_accel.config.schema import expected, recipe_schema, section_schema
from hf_accel.config.sections import choices
from hf_accel.config.selection import selection_defaults
from hf_accel.config.training import DEFAULTS, FIXED, MAPPINGS, training_types
from hf_accel.config.yaml_text import dump_yaml, parse_yaml
from hf_accel.errors import UserError
from hf_accel.recipe import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(recipe_schema())
    return jsonschema.Draft202012Validator(recipe_schema())


def test_every_shipped_recipe_and_its_resolved_form_fit_the_schema(schema):
    for path in [path for path in RECIPES_FOLDER.rglob("*.yaml") if path.parent.name != LAUNCH_FILES]:
        schema.validate(parse_yaml(path.read_text("utf-8")))
    for name in shipped_recipes():
        schema.validate(load_recipe(name, variant_names(name)[0]).to_dict())


@pytest.mark.parametrize(
    "text",
    [
        "modle: {name: x}",
        "model: {nam: x}",
        "model: {kernels: fast}",
        "data: {cache: ram}",
        "data: {validation: 1.5}",
        "data: {image_size: '32'}",
        "data: {augment: {flipp: true}}",
        "data: {augment: {randaugment: {magnitude: 31}}}",
        "data: {augment: {flip: sometimes}}",
        "data: {class_weights: equal}",
        "training: {lerning_rate: 1}",
        "training: {learning_rate: fast}",
        "training: {bf16: maybe}",
        "variants: {a: {training: {sed: 1}}}",
        "variants: {a: {trainin: {}}}",
        "variants: {../a: {}}",
        "name: ../x",
        "name: ..",
        "extends: 5",
    ],
)
def test_a_recipe_that_the_loader_refuses_does_not_fit_the_schema(schema, text, tmp_path):
    values = parse_yaml(text)
    assert not schema.is_valid(values)
    (tmp_path / "mine.yaml").write_text(dump_yaml({"extends": "digits", **values}))
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))):
        load_recipe(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "training: {bf16: auto, seed: 1.0, save_strategy: 'no'}",
        "training: null",
        "variants: {a: null, b: {extends: a, data: {progressive_resizing: null}}}",
        "data: {augment: {flip: alternating, randaugment: {}}, class_weights: [1, 2.5], progressive_resizing: {full_at: 1}}",
        "name: Blüte 2.0\nextends: ../recipes/digits.yaml",
    ],
)
def test_a_patch_fits_the_schema(schema, text):
    schema.validate(parse_yaml(text))


def test_every_setting_says_what_it_means():
    for described in (
        section_schema("model"),
        section_schema("data"),
        *(section_schema("training")["properties"][name] for name in MAPPINGS),
    ):
        waiting = [described, *described.get("anyOf", [])]
        while waiting:
            for name, setting in waiting.pop().get("properties", {}).items():
                assert setting["description"].endswith("."), name
                waiting += [setting, *setting.get("anyOf", [])]


def test_the_schema_is_printed_without_the_keys_that_only_this_package_reads(capsys):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == recipe_schema()
    assert '"expected"' not in printed
    assert '"$ref": "#/$defs/training"' in printed


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"type": "integer", "minimum": 4}, "a whole number from 4"),
        ({"type": "number", "minimum": 0, "maximum": 0.9}, "a number from 0 to 0.9"),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "a number above 0, at most 1"),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "a number above 0, below 1"),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, "a number from 0 to below 1"),
        ({"type": "integer", "maximum": 4294967295, "minimum": 0}, "a whole number from 0 to 4294967295"),
        ({"enum": ["a", "b"]}, "one of a, b"),
        ({"anyOf": [{"type": "boolean"}, {"const": "auto"}]}, 'true, false or "auto"'),
        ({"anyOf": [{"type": "string"}, {"const": False}, {"type": "null"}]}, "text, false or null"),
        ({"type": "array", "items": {"type": "number"}}, "a list of numbers"),
        ({"type": "object"}, "a mapping"),
    ],
)
def test_the_expectation_of_a_setting_is_put_in_words(setting, words):
    assert expected(setting) == words


def test_choices_are_those_of_the_field():
    assert choices("data.test_time_augmentation") == ("none", "flip", "flip_shift")
    assert choices("model.kernels") == ("auto", "library")


def test_the_reference_is_the_one_that_the_fields_give(capsys):
    assert main(["schema", "--format", "markdown"]) == 0
    assert capsys.readouterr().out == (ROOT / "docs" / "recipe.md").read_text("utf-8"), (
        "run: hf-accel recipe schema --format markdown > docs/recipe.md"
    )


def test_the_example_of_the_reference_is_a_recipe(tmp_path, schema):
    (example,) = re.findall(r"```yaml\n(.*?)```", recipe_reference(), re.DOTALL)
    (tmp_path / "mine.yaml").write_text(example, encoding="utf-8")
    assert load_recipe(tmp_path / "mine.yaml", "long").training["num_train_epochs"] == 20
    schema.validate(parse_yaml(example))


@pytest.mark.parametrize("section", ["model", "data", "augment"])
def test_every_example_of_a_setting_is_accepted(section):
    properties = section_schema("model" if section == "model" else "data")["properties"]
    settings = properties["augment"]["properties"] if section == "augment" else properties
    examples = {name: setting["examples"][0] for name, setting in settings.items() if "examples" in setting}
    assert len(examples) > 3
    if section == "augment":
        load_recipe("digits", overrides={"data": {"augment": examples}})
        return
    of_texts = OF_TEXTS.get(section, ())
    load_recipe("digits", overrides={section: {k: value for k, value in examples.items() if k not in of_texts}})
    of_images = OF_IMAGES[section]
    texts = {section: {name: value for name, value in examples.items() if name not in of_images}}
    load_recipe("xlnet_amazon_polarity", overrides=texts)


def test_arguments_that_are_set_exist_upstream():
    selection = [selection_defaults("", {}, has_validation) for has_validation in (True, False)]
    assert {*FIXED, *DEFAULTS, *selection[0], *selection[1]} <= set(training_types())


def test_what_is_pushed_is_a_section_that_no_training_depends_on():
    plain = load_recipe("digits")
    pushed = load_recipe("digits", overrides={"push": {"examples": True}})
    assert (plain.push.examples, pushed.push.examples) == (None, True)
    assert "push" not in plain.to_dict()
    assert pushed.to_dict()["push"] == {"examples": True}
    assert pushed == plain  # so a run is resumed whether or not its pictures are published
    with pytest.raises(UserError, match=r"digits: push\.examples is 3, expected true, false or null"):
        load_recipe("digits", overrides={"push": {"examples": 3}})
    with pytest.raises(UserError, match=r"push\.example is not a setting"):
        load_recipe("digits", overrides={"push": {"example": True}})
