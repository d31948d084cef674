"""`--explain` of predict, page and demo: pictures of what speaks for a class."""

import PIL.Image
import pytest

from hf_accel import demo, page
from hf_accel.data.images import decode_image
from hf_accel.errors import UserError
from hf_accel.models import heat_maps
from hf_accel.predict import main as predict_main
from hf_accel.train import train
from tests.support.saved_models import save_timm

pytest.importorskip("captum", reason='needs captum: pip install "hf_accel[trust]"')
pytestmark = pytest.mark.slow


@pytest.fixture
def network(tmp_path):
    return save_timm(tmp_path / "network", "cifar_resnet20", ["blue", "red"], depth=8, width=4)


def test_predict_writes_one_picture_for_each_image(network, photos, tmp_path, capsys):
    (photos / "test" / "red" / "00.png").write_bytes(b"broken")
    folder = tmp_path / "why"
    assert predict_main([str(network), str(photos / "test"), "--explain", str(folder), "--format", "csv"]) == 1
    files = sorted(folder.iterdir())
    assert len(files) == 7
    assert {file.name.partition("-")[0] for file in files} == {f"{n:06}" for n in range(8)} - {"000004"}
    assert all(decode_image(file).shape == (224, 224, 3) for file in files)
    assert "p(" not in capsys.readouterr().out


def test_the_page_of_a_run_shows_heat_maps_over_its_mistakes_on_request(tiny_recipe, capsys):
    run = train(tiny_recipe({"training": {"learning_rate": 1e-6}}))
    text = (run / "report.html").read_text()
    assert 'class="explanation"' not in text
    assert 'id="as-trained"' in text
    assert page.main([str(run), "--explain"]) == 0
    explained = (run / "report.html").read_text()
    mistakes = explained.count("true: <strong>")
    assert explained.count('class="explanation"') == mistakes > 0


def test_the_demo_explains_the_likeliest_class(network, photos):
    image = PIL.Image.fromarray(decode_image(photos / "test" / "red" / "00.png"))
    picture = demo.explanation(str(network))(image)
    assert picture.shape == (224, 224, 3)


@pytest.mark.parametrize("command", [predict_main, page.main, demo.main])
def test_without_captum_the_command_says_what_to_install(command, network, photos, monkeypatch):
    monkeypatch.setattr(heat_maps, "find_spec", lambda name: None)
    words = [str(photos), "--explain", "why"] if command is predict_main else ["--explain"]
    with pytest.raises(UserError, match=r'captum is not installed. pip install "hf_accel\[trust\]"'):
        command([str(network), *words])


def test_a_space_is_not_explained(network, tmp_path):
    with pytest.raises(UserError, match="a Space and an exported model do without"):
        demo.main([str(network), "--explain", "--space", str(tmp_path / "space")])
