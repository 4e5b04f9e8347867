"""The documentation's tables, from the committed results: `python -m benchmarks.tables` writes them.

Each stands between ``<!-- table: name -->`` and ``<!-- end -->``; a test compares pages and results.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

HERE = Path(__file__).parent
PAGES = tuple(
    HERE.parent / "docs" / f"{page}.md"
    for page in ("methods", "rounding", "bits-back", "prequential", "shortest", "bits-and-error")
)
BETWEEN = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Figure = Mapping[str, float]


def results(script: str) -> dict[str, Any]:
    """What a benchmark wrote."""
    return json.loads((HERE / f"{script}.json").read_text())["results"]


def percent(figure: Figure, digits: int = 2) -> str:
    """Mean and standard deviation over seeds."""
    return f"{100 * figure['mean']:.{digits}f} ± {100 * figure['sd']:.{digits}f}"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table whose columns are right-aligned but for the first."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def sparse_training() -> str:
    networks = results("sparse_training")["networks"]
    rows = [
        [
            name,
            percent(row["test_accuracy"]),
            f"{100 * row['sparsity']['mean']:.1f}",
        ]
        for name, row in networks.items()
    ]
    return markdown(["network", "test accuracy, %", "weights that are zero, %"], rows)


def one_shot() -> str:
    methods = results("one_shot")["methods"]
    again = "; batch norms re-estimated"
    amounts = list(next(iter(methods.values())))
    rows = [
        [name.removesuffix(again), "yes" if name.endswith(again) else "no"]
        + [percent(row[amount], 1) for amount in amounts]
        for name, row in methods.items()
    ]
    return markdown(
        ["method", "batch norms re-estimated", *(f"{amount} removed" for amount in amounts)], rows
    )


def fine_tuned() -> str:
    rows = [
        [target, percent(row["before"]), f"{row['epochs']['mean']:.0f}", percent(row["accuracy"])]
        for target, row in results("fine_tuned")["targets"].items()
    ]
    return markdown(["target", "before fine-tuning, %", "epochs", "after, %"], rows)


def channels() -> str:
    found = results("channels")
    rows = [
        [
            name,
            percent(row["before"]),
            percent(row["accuracy"]),
            f"{100 * row['share_of_macs']['mean']:.1f}",
            f"{100 * row['share_of_parameters']['mean']:.1f}",
            f"{row['times_faster_batch_64']['mean']:.2f}×",
            f"{row['times_faster_batch_1']['mean']:.2f}×",
        ]
        for name, row in found["methods"].items()
    ]
    after = f"after {found['epochs']} epochs, %"
    head = [
        "method",
        "before fine-tuning, %",
        after,
        "multiply-adds, %",
        "parameters, %",
        "batch 64",
        "batch 1",
    ]
    return markdown(head, rows)


def calibrated() -> str:
    return _by_price("calibrated")


def under_code() -> str:
    return _by_price("under_code")


def _by_price(script: str) -> str:
    found = results(script)
    rows = [["the exact network", "", f"{100 * found['dense_accuracy']:.2f}"]]
    rows += [
        [
            f"{float(price):,}".removesuffix(".0"),
            f"{row['file_bytes']['mean'] / 1000:.1f}",
            percent(row["accuracy"]),
        ]
        for price, row in found["prices"].items()
    ]
    return markdown(["price", "kB", "accuracy, %"], rows)


def calibrated_text() -> str:
    found = results("calibrated_text")
    rows = [["the exact network", "", f"{found['dense']:.4f}", "1"]]
    rows += [
        [times, f"{row['file_bytes'] / 1e6:.2f}", f"{row['judged']:.4f}", f"{row['other_text']:.3f}"]
        for times, row in found["times_words_count"].items()
    ]
    return markdown(["times that words' errors count", "MB", "STS-B dev", "other text"], rows)


def under_code_text() -> str:
    result = results("under_code_text")
    found = result["found"]
    rows = [["the exact network", "", f"{result['dense']:.4f}", "1"]]
    before = [f"{found[f'{score}_before']['mean']:.4f}" for score in ("judged", "other_text")]  # of all seeds
    rows.append(["rounded", f"{found['file_bytes_before']['mean'] / 1e6:.2f}", *before])
    after = [f"{found[score]['mean']:.4f} ± {found[score]['sd']:.4f}" for score in ("judged", "other_text")]
    rows.append(["trained under the code", f"{found['file_bytes']['mean'] / 1e6:.2f}", *after])
    return markdown(["network", "MB", "STS-B dev", "other text"], rows)


def equal_error() -> str:
    rows = [
        [
            network,
            str(point["qp"]),
            f"{8 * point['laconic_bytes'] / point['weights']:.2f}",
            f"{point['bytes_ratio']:.3f}",
        ]
        for network, points in results("codec")["equal_error"].items()
        for point in points
    ]
    return markdown(["network", "its qp", "bits a weight, ours", "bytes, ours / its"], rows)


def identical() -> str:
    rows = [
        [
            integers,
            f"{row['laconic']['bytes'] / 1e6:.2f}",
            f"{row['bytes_ratio']:.3f}",
            f"{row['times_faster_encoding']:.1f}×",
            f"{row['times_faster_decoding']:.1f}×",
        ]
        for integers, row in results("codec")["identical"].items()
    ]
    head = ["integers", "MB, ours", "bytes, ours / its", "faster, encoding", "faster, decoding"]
    return markdown(head, rows)


def hinton_van_camp() -> str:
    found = results("hinton_van_camp")
    keys = {"data_bits": "data", "weight_bits": "weights", "prior_bits": "prior", "total_bits": "total"}
    always = "draws_where_shortest"
    ways = {"shortest": f"{always}_without_the_priors_bits", "with its prior": always}
    rows = [
        [name, f"{row['error']['mean']:.3f} ± {row['error']['sd']:.3f}", f"{row['train_error']['mean']:.3f}"]
        + [f"{row[key]['mean']:.0f}" if key in row else "" for key in keys]
        + [str(found[way].get(name, "")) for way in ways.values()]
        for name, row in found["methods"].items()
    ]
    head = ["method", "test error", "training error", *(f"{name}, bits" for name in keys.values()), *ways]
    return markdown(head, rows)


def prequential() -> str:
    codes = list(results("prequential")["seeds"].values())
    names = list(codes[0]["learner_bits"])

    def bits(values: Iterable[float]) -> str:
        values = list(values)
        return f"{fmean(values):,.0f} ± {stdev(values):,.0f}"

    rows = [
        [f"{blocks[0]['end']:,}", bits(block["bits"] for block in blocks)]
        + [f"{100 * fmean(block['accuracy'] for block in blocks):.2f}"]
        + [bits(block["learner_bits"][name] for block in blocks) for name in names]
        for blocks in zip(*(code["blocks"] for code in codes), strict=True)
    ]
    alone = [bits(code["learner_bits"][name] for code in codes) for name in names]
    head = ["labels to", "bits", "accuracy, %", *(f"{name} alone, bits" for name in names)]
    return markdown(head, [*rows, ["total", bits(code["total_bits"] for code in codes), "", *alone]])


def lenets() -> str:
    rows = []
    for of, row in results("lenets")["networks"].items():
        network, _, price = of.replace("-distilled", ", distilled").partition(", price ")
        total = 8 * row["bytes"]["mean"] + row["label_bits"]["mean"]
        cells = [
            f"{row['bytes']['mean']:,.0f} ± {row['bytes']['sd']:,.0f}",
            percent(row["test_error"]),
            f"{100 * row['test_error']['max']:.2f}",
            f"{row['nonzero']['mean']:,.0f}",
            f"{total / 1000:.1f}",
        ]
        rows.append([network, price, *cells])
    head = ["network", "price", "bytes", "test error, %", "worst seed", "weights left", "with labels, kbit"]
    return markdown(head, rows)


def targets() -> str:
    rows = [
        [
            network,
            f"`{target.replace('drop=', '').replace('n_bytes=', '')}`",
            f"{row['bytes']['mean']:,.0f} ± {row['bytes']['sd']:,.0f}",
            f"{row['times_smaller']['mean']:,.0f}×",
            f"{100 * row['score_before']['mean']:.2f}",
            percent(row["score"]),
            f"{100 * row['test_accuracy_before']['mean']:.2f}",
            percent(row["test_accuracy"]),
            f"{row['misses']['max']:g}",
        ]
        for network, found in results("targets")["tasks"].items()
        for target, row in found.items()
    ]
    scores = ["held out, %", "after, %", "test, %", "after, %"]
    return markdown(["network", "target", "bytes", "smaller", *scores, "missed by"], rows)


MEASURES = {
    "total_bits": "total bits",
    "file_bits": "bits of the file",
    "data_bits": "bits of the labels, given the file",
    "parameters": "parameters",
    "nonzero": "parameters that are not zero",
    "l2_norm": "L2 norm",
    "spectral_norms": "product of spectral norms",
    "path_norm": "path norm",
    "training_bits": "training loss",
    "training_error": "training error",
    "error_on_20": "error on 20 held-out images",
    "error_on_50": "… on 50",
    "error_on_200": "… on 200",
    "error_on_1000": "… on 1,000",
    "at_random": "picked at random",
}


def prediction() -> str:
    return _by_measure("")


def prediction_of_files() -> str:
    return _by_measure("file_")


def _by_measure(of: str) -> str:
    """How well each measure ranks networks as trained, or `of` their files; a row a measure."""
    found = {data: results("prediction")[data]["measures"]["all"] for data in ("digits", "MNIST")}

    def cells(judged: Mapping[str, Figure]) -> list[str]:
        figures = [judged[of + key] for key in ("tau", "rho")]
        lost = {key: 100 * judged[f"{of}regret"][key] for key in ("mean", "max")}
        return [
            *(f"{figure['mean']:.2f} ± {figure['sd']:.2f}" for figure in figures),
            f"{lost['mean']:.1f} ({lost['max']:.1f})",
        ]

    rows = [
        [name, *(cell for by in found.values() for cell in (cells(by[key]) if key in by else 3 * [""]))]
        for key, name in MEASURES.items()
    ]
    return markdown(["measure", *(f"{data}: {of}" for data in found for of in ("τ", "ρ", "lost"))], rows)


TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        *(one_shot, fine_tuned, channels, sparse_training),
        *(calibrated, calibrated_text, equal_error, identical, hinton_van_camp, prequential),
        *(targets, lenets, under_code, under_code_text, prediction, prediction_of_files),
    )
}


def filled(page: str) -> str:
    """The page with its tables as the results are now."""
    return BETWEEN.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page.read_text()))
