"""The table of a compressed model, and which files are not worth writing."""

from dataclasses import replace

import pytest

from hf_accel.compression.rows import Row, cells, ratio_text, refusal, remarks, render, speed_verdicts
from hf_accel.measure.paired import paired_ratio

FP32 = Row("onnxruntime", "fp32", "onnx/model.onnx", 2**22, 2**21, 0.9, 0.89, 1.0, 0.010, 0.012, 100.0)
INT8 = Row("onnxruntime", "int8", "onnx/model_quantized.onnx", 2**20, 2**19, 0.895, 0.88, 0.98, 0.005, 0.006, 200.0,
           {"ratio": 2.0, "low": 1.9, "high": 2.1}, {"ratio": 2.0, "low": 1.8, "high": 2.2}, "faster", "faster")  # fmt: skip
TORCH = Row("torch", "bf16", None, None, None, None, None, 0.99, 0.02, 0.03, 50.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"accuracy": 0.89}, None),  # exactly as much as is allowed
        ({"accuracy": 0.889}, "accuracy lost: 1.10 points, more than max_drop 0.01"),
        ({"accuracy": None, "same_answers": 0.995}, None),
        ({"accuracy": None}, "images with another class: 2.00 points, more than max_drop 0.01"),
        ({"speed_verdict": "slower"}, None),  # but faster for one image
        ({"speed_verdict": "slower", "latency_verdict": "no measurable difference"}, "slower than the float32 file"),
        ({"speed_verdict": "slower", "latency_verdict": "slower", "format": "fp16"}, None),
        ({"speed_verdict": "no measurable difference", "latency_verdict": "no measurable difference"}, None),
    ],
)
def test_a_file_is_refused_for_accuracy_or_speed(changes, reason):
    found = refusal(replace(INT8, **changes), FP32, max_drop=0.01)
    assert found is None if reason is None else found.startswith(reason)


def test_verdicts_are_of_batches_and_of_one_image():
    base = [1.0, 1.02, 0.98, 1.01, 0.99]
    twice, same = (paired_ratio([factor * value for value in base], base) for factor in (2.0, 1.0))
    half = paired_ratio([0.5 * value * (1 + 0.01 * place) for place, value in enumerate(base)], base)
    assert speed_verdicts([(twice, same), (half, half)]) == [
        ("faster", "no measurable difference"),
        ("slower", "slower"),
    ]


def test_the_table_has_a_line_for_each_form_and_a_dash_for_what_is_not_known():
    assert cells(TORCH) == ("PyTorch bf16", "-", "-", "-", "-", "20.0", "30.0", "50.0", "-")
    assert cells(FP32) == ("ONNX fp32", "4.00", "2.00", "90.00 %", "0.8900", "10.0", "12.0", "100", "-")
    assert cells(INT8)[-1] == "2.00x (1.90 to 2.10)"
    assert len(render([TORCH, FP32, INT8]).splitlines()) == 4
    assert ratio_text({"ratio": 2.0, "low": None, "high": None}) == "2.00x"


def test_a_file_that_is_refused_is_named_with_the_reason():
    refused = replace(INT8, refused="slower")
    assert remarks([FP32, replace(refused, written=False)]) == [
        "onnx/model_quantized.onnx: slower. It is not written; --keep writes it."
    ]
    assert remarks([refused]) == ["onnx/model_quantized.onnx: slower. It is written all the same (keep)."]
