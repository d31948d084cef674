"""The environment names device, versions, commit and command, publishes no secret and does without tools that are missing."""

import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import hf_accel
from hf_accel.machine import description as environment
from hf_accel.machine import precision
from hf_accel.machine.description import describe_environment, package_commit
from hf_accel.machine.precision import native_bf16
from hf_accel.privacy import published_command


def commit_of_a_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make `folder` a git checkout of a package named hf_accel, let the module under test believe it lives there."""
    (folder / "hf_accel").mkdir(parents=True)
    (folder / "hf_accel" / "train.py").write_text("pass\n")
    monkeypatch.setattr(environment, "_PACKAGE", (folder / "hf_accel").resolve())
    git = ("git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org")
    for command in (("init", "-q"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run((*git, *command), check=True, capture_output=True)
    return subprocess.run((*git, "rev-parse", "HEAD"), check=True, capture_output=True, text=True).stdout.strip()


def test_the_environment_has_every_key_of_the_report_and_more():
    described = describe_environment("cpu")
    assert {"device", "cpu", "cores", "python", "torch", "transformers", "timm", "commit", "command"} <= set(described)
    assert described["device"] == "cpu"
    assert described["driver"] is None
    assert described["cuda"] is None
    assert described["cpu"]
    assert described["cores"] >= 1
    assert described["memory_gib"] > 0
    assert described["hf_accel"] == hf_accel.__version__
    assert torch.__version__.startswith(described["torch"])


def test_a_gpu_is_described_by_name_driver_and_cuda_version(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA H200", total_memory=141 * 1024**3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    monkeypatch.setattr(environment, "output_of", lambda *command: "570.1\n570.1" if "smi" in command[0] else None)
    described = describe_environment("cuda")
    assert (described["device"], described["driver"], described["cuda"]) == ("NVIDIA H200", "570.1", "13.2")
    assert described["device_memory_gib"] == 141


def test_a_machine_without_git_nvidia_smi_or_proc_is_described_all_the_same(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(
        environment, "Path", lambda path: tmp_path / "absent" if path == "/proc/cpuinfo" else Path(path)
    )
    described = describe_environment("cpu")
    assert described["commit"] is None
    assert described["cpu"]


def test_a_library_that_is_not_installed_is_null():
    assert environment.installed_version("no-such-distribution") is None


def test_the_commit_is_that_of_the_checkout_and_says_when_code_was_changed(monkeypatch, tmp_path):
    commit = commit_of_a_checkout(tmp_path, monkeypatch)
    assert package_commit() == commit
    (tmp_path / "mine.yaml").write_text("not the package's\n")
    assert package_commit() == commit
    (tmp_path / "hf_accel" / "new.py").write_text("pass\n")
    assert package_commit() == f"{commit}-dirty"


def test_an_installed_package_inside_another_checkout_has_no_commit(monkeypatch, tmp_path):
    commit_of_a_checkout(tmp_path, monkeypatch)
    installed = tmp_path / ".venv" / "site-packages" / "hf_accel"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "_PACKAGE", installed.resolve())
    assert package_commit() is None


def test_the_repository_of_a_git_hook_is_not_taken_for_the_packages(monkeypatch, tmp_path):
    commit_of_a_checkout(tmp_path / "other", monkeypatch)
    commit = commit_of_a_checkout(tmp_path / "own", monkeypatch)
    (tmp_path / "own" / "hf_accel" / "train.py").write_text("changed\n")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other" / ".git"))
    assert package_commit() == f"{commit}-dirty"


def test_a_checkout_without_a_commit_yet_has_none(monkeypatch, tmp_path):
    (tmp_path / "hf_accel").mkdir()
    subprocess.run(("git", "init", "-q", str(tmp_path)), check=True)
    monkeypatch.setattr(environment, "_PACKAGE", (tmp_path / "hf_accel").resolve())
    assert package_commit() is None


def test_the_command_can_be_typed_again():
    program = str(Path(hf_accel.__file__).parent / "train.py")
    argv = [program, "--recipe", "vit_cifar10", "--data.augment", "{flip: true}", "--learning_rate", "2e-5"]
    expected = "python -m hf_accel.train --recipe vit_cifar10 --data.augment '{flip: true}' --learning_rate 2e-5"
    assert published_command(argv) == expected
    assert published_command(["/opt/venv/bin/hf-accel", "demo", "x"]) == "hf-accel demo x"
    assert published_command(["run.py"]) == "run.py"


TOKEN = "hf_" + "aB3" * 11


@pytest.mark.parametrize(
    "arguments",
    [
        ["--hub_token", "s3cret"],
        ["--hub_token=s3cret"],
        ["--hub-token", "s3cret"],
        ["--hub_token", "-s3cret"],
        ["--training.hub_token", "s3cret"],
        ["--training.push_to_hub_token=s3cret"],
        ["training.hub_token=s3cret"],
        ["--training", "{hub_token: s3cret, seed: 1}"],
        ["--training", '{"hub_token": "s3cret"}'],
        ["--api-key", "s3cret"],
        ["https://jane:s3cret@example.org/data"],
        ["https://example.org/data?token=s3cret&x=1"],
        ["--note", f"my {TOKEN}"],
        [TOKEN],
        ["ghp_" + TOKEN[3:]],
    ],
)
def test_no_secret_of_the_command_line_is_kept(arguments):
    published = published_command(["train.py", *arguments])
    assert "s3cret" not in published
    assert TOKEN[3:] not in published
    assert "***" in published


@pytest.mark.parametrize(
    "arguments",
    [
        ["--model.name", "timm/resnet50.a1_in1k", "--max_tokens", "5"],
        ["--model.tokenizer", "xlnet/xlnet-base-cased"],
        ["--data.name", "./photos", "../photos", "photos/cats"],
        ["--data.name", "https://example.org/a/b.zip", "hf://datasets/x/y", "s3://bucket/key"],
        ["--model.revision", "0123456789abcdef0123456789abcdef01234567"],
        ["--hub_token", "--seed", "3"],
    ],
)
def test_other_words_of_the_command_are_kept_as_they_were(arguments):
    assert published_command(["train.py", *arguments]) == " ".join(["train.py", *arguments])


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("/home/jane/photos", "photos"),
        ("/home/jane doe/photos", "photos"),
        ("~/photos", "photos"),
        ("file:///home/jane/a.png", "a.png"),
        ("--data.name=/home/jane/photos", "--data.name=photos"),
        ("data.name=/home/jane/photos", "data.name=photos"),
        ("{output_dir: /home/jane/out, cache_dir: ./here}", "{output_dir: out, cache_dir: ./here}"),
        ("[/home/jane/a,/home/jane/b]", "[a,b]"),
        ("CWD/recipes/mine.yaml", "recipes/mine.yaml"),
        ("CWD", "."),
        ("HOME", "~"),
        ("/", "/"),
    ],
)
def test_local_folders_are_not_published(argument, kept, monkeypatch, tmp_path):
    home = tmp_path / "jane"
    here = home / "project"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    argument = argument.replace("CWD", str(here)).replace("HOME", str(home))
    published = shlex.split(published_command(["train.py", argument]))
    assert published == ["train.py", kept]


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_a_gpu_multiplies_bf16_from_capability_8_on(capability, native, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    answer, reason = native_bf16("cuda")
    assert answer is native
    assert f"NVIDIA X has CUDA capability {capability[0]}.{capability[1]}" in reason


@pytest.mark.parametrize(
    ("flags", "native", "named"),
    [
        ("fpu avx512f avx512_bf16", True, "has avx512_bf16"),
        ("fpu amx_bf16 amx_tile", True, "has amx_bf16"),
        ("fpu avx512f avx512_vnni", False, "neither"),
        ("", False, "neither"),
    ],
)
def test_a_cpu_multiplies_bf16_with_avx512_or_amx_only(flags, native, named, monkeypatch):
    known = ("fpu", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile", "avx512_vnni")
    capabilities = {name: name in flags.split() for name in known}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    from_torch = native_bf16("cpu")
    # An older torch does not tell; the kernel does.
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(precision, "_cpuinfo", lambda key: flags if key == "flags" else "Some CPU")
    from_kernel = native_bf16(torch.device("cpu"))
    assert from_torch[0] is from_kernel[0] is native
    assert named in from_torch[1]
    assert named in from_kernel[1]


def test_bf16_on_mps_is_answered_no_with_a_reason():
    assert native_bf16("mps") == (False, "bf16 is not known to be faster on mps")


def test_importing_the_module_imports_no_torch():
    script = "import sys, hf_accel.machine.description; assert not {'torch', 'transformers', 'timm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_gpu_has_tf32_and_16_bit_formats_by_its_capability(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    natives = {name: is_native for name, (is_native, _) in precision.precisions("cuda").items()}
    assert natives == {"fp32": True, "tf32": False, "bf16": False, "fp16": True}
    assert precision.precisions("cpu")["fp16"] == (False, "its loss scaling needs CUDA")
