"""The README's commands run, and its figures are those of the committed results."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
MINE = re.findall(r"as mine\.py -->\n```python\n(.*?)```", README, re.DOTALL)[0]


def test_the_commands_run_one_after_another(tmp_path):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "mine.py").write_text(MINE)
    for language, block in BLOCKS:
        if language == "python":
            subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
        for line in block.splitlines() if language == "sh" else []:
            command = shlex.split(line, comments=True)
            if command[0] == "python":
                shown = subprocess.check_output([sys.executable, *command[1:]], cwd=tmp_path, text=True)
                assert "Linear(in_features=20" in shown
            if command[0] == "laconic":
                module = [sys.executable, "-m", "laconic.cli.main", *command[1:]]
                subprocess.run(module, cwd=tmp_path, check=True, capture_output=True)
    written = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}
    files = {"model.lac", "checkpoint.pt", "small.lac", "decoded.safetensors", "net.lac"}
    assert written == {"examples", "runs", "mine.py", *files}


def test_make_has_the_targets_and_ci_runs_the_test_command():
    targets = re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"help", "demo", "test", "test-slow", "check", "docs", "bench"} <= set(targets)
    named = set(re.findall(r"make ([a-z-]+)", README))
    assert named <= set(targets)
    assert "\nmake test\n" in (ROOT / ".ci" / "run").read_text()


FIGURES = [
    ("iterative", "digits/dense_accuracy/mean", "{:.2%}"),
    ("iterative", "digits/pruned_accuracy/mean", "{:.2%}"),
    ("iterative", "digits/quantised_accuracy/mean", "{:.2%}"),
    ("iterative", "digits/file_bytes/mean", "{:,.0f}"),
    ("iterative", "digits/times_smaller_than_float32/mean", "{:.0f}×"),
    ("iterative", "mnist/dense_accuracy/mean", "{:.2%}"),
    ("iterative", "mnist/pruned_accuracy/mean", "{:.2%}"),
    ("iterative", "mnist/quantised_accuracy/mean", "{:.2%}"),
    ("iterative", "mnist/quantised_accuracy/sd", "± {:.2%}"),
    ("iterative", "mnist/file_bytes/mean", "{:,.0f}"),
    ("iterative", "mnist/times_smaller_than_float32/mean", "{:.0f}×"),
    *(
        ("data_free", f"{network}/{path}", form)
        for network, score in {
            "ResNet-20": "| {:.2%} |",
            "ResNet-32": "| {:.2%} |",
            "EfficientNet-Lite0": "| {:.2%} |",
            "MiniLM": "| {:.4f} |",
            "SmolLM2-135M": "| {:.3f} |",
        }.items()
        for path, form in (
            ("default/dense_score", score),
            ("default/score", score),
            ("default/bytes", "| {:,.0f} |"),
            ("default/times_smaller", "{:.1f}×"),
            ("bytes_beside_nncodec/grid", "| {:.2f} |"),
        )
    ),
    ("throughput", "encode_weights_per_second", "{:.0f} M"),
    ("throughput", "decode_weights_per_second", "{:.0f} M"),
    ("prequential", "total_bits/mean", "{:,.0f} ±"),
    ("prequential", "total_bits/sd", "± {:,.0f} bits"),
    ("prequential", "compression/mean", "{:.0f} times shorter"),
    *(
        ("lenets", f"networks/{of}/{path}", form)
        for of in (
            "lenet-300-100, price 3.5",
            *(f"lenet-5, price {price}" for price in ("1.7", "3", "10")),
            *(f"lenet-5-distilled, price {price}" for price in ("2.4", "1.5")),
        )
        for path, form in (
            ("bytes/mean", "| {:,.0f} |"),
            ("test_error/mean", "| {:.2%} ±"),
            ("test_error/sd", "± {:.2%} |"),
            ("test_error/max", "| {:.2%} |"),
        )
    ),
    *(
        ("under_code", f"prices/{price}/{path}", form)
        for price in ("8", "3.2")
        for path, form in (
            ("accuracy/mean", "{:.2%} ±"),
            ("accuracy/sd", "± {:.2%}"),
            ("file_bytes/mean", "{:,.0f} bytes"),
        )
    ),
    ("under_code_text", "found/judged/mean", "{:.3f} ±"),
    ("under_code_text", "found/judged/sd", "± {:.3f} with"),
    ("under_code_text", "dense", "{:.3f} before"),
    ("under_code_text", "found/file_bytes/mean", "{:.2f} MB"),
    ("select", "times_faster", "{:.0f} times faster"),
    ("select", "share_of_extra_memory", "{:.0%}"),
]


@pytest.mark.parametrize(("script", "path", "form"), FIGURES)
def test_figures_are_the_committed_results(script, path, form):
    value = result(script, path)
    assert form.format(abs(value) / 1e6 if "M" in form else abs(value)) in README


def test_the_figure_of_the_documentations_first_page_is_a_result():
    n_bytes = result("lenets", "networks/lenet-300-100, price 3.5/bytes/mean")
    assert f"takes {n_bytes:,.0f} bytes" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def result(script, path):
    value = json.loads((ROOT / "benchmarks" / "results" / f"{script}.json").read_text())["results"]
    for key in path.split("/"):
        value = value[key]
    return value
