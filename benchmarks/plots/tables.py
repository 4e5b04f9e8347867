"""The documentation's tables, from the committed results: `python -m benchmarks.plots.tables` writes them.

Each stands between ``<!-- table: name -->`` and ``<!-- end -->``; a test compares pages and results. Most are
rows of results by the name in their first column, and for each other column a head and what it says of a row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from benchmarks.command_line import command_line
from benchmarks.plots.style import DOCS
from benchmarks.record_keeping import read_results

NAMES = ("methods", "rounding", "bits-back", "prequential", "shortest", "bits-and-error", "concepts")
PAGES = tuple(DOCS / f"{name}.md" for name in NAMES)
BETWEEN = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
Row = Mapping[str, Any]
Cell = Callable[[Row], str]
TABLES: dict[str, Callable[[], str]] = {}


def shown(of: Callable[[], str]) -> Callable[[], str]:
    """Let a table stand on a page, under its function's name."""
    TABLES[of.__name__] = of
    return of


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose columns are right-aligned but for the first."""
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def table(
    first: str, rows: Mapping[str, Row], columns: Mapping[str, Cell], before: Iterable[Sequence[str]] = ()
) -> str:
    """A line for each row, after those `before`."""
    cells = [[name, *(cell(row) for cell in columns.values())] for name, row in rows.items()]
    return markdown([first, *columns], [*before, *cells])


def number(key: str, form: str = "{:.2f}", scale: float = 1.0) -> Cell:
    """A number of the row."""
    return lambda row: form.format(scale * row[key])


def mean(key: str, form: str = "{:.2f}", scale: float = 1.0, of: str = "mean") -> Cell:
    """A figure's mean over seeds, or its extreme; nothing where the row lacks it."""
    return lambda row: form.format(scale * row[key][of]) if key in row else ""


def spread(key: str, form: str = "{:.2f}", scale: float = 1.0) -> Cell:
    """A figure's mean and standard deviation over seeds."""
    return lambda row: " ± ".join(form.format(scale * row[key][of]) for of in ("mean", "sd"))


def percent(key: str, digits: int = 2) -> Cell:
    """The same, in per cent."""
    return spread(key, f"{{:.{digits}f}}", 100)


@shown
def sparse_training() -> str:
    columns = {
        "test accuracy, %": percent("test_accuracy"),
        "weights that are zero, %": mean("sparsity", "{:.1f}", 100),
    }
    return table("network", read_results("sparse_training")["networks"], columns)


@shown
def dense_reestimated() -> str:
    rows = {kind: {"accuracy": found} for kind, found in read_results("one_shot")["dense"].items()}
    return table("images", rows, {"test accuracy, %": percent("accuracy", 1)})


@shown
def one_shot() -> str:
    methods: Mapping[str, Row] = read_results("one_shot")["methods"]
    rows: list[list[str]] = []
    for name, row in methods.items():
        method, _, images = name.partition("; batch norms re-estimated on ")
        rows.append([method, images or "not at all", *(percent(amount, 1)(row) for amount in row)])
    removed = [f"{amount} removed" for amount in next(iter(methods.values()))]
    return markdown(["method", "batch norms re-estimated on", *removed], rows)


@shown
def fine_tuned() -> str:
    columns = {
        "before fine-tuning, %": percent("before"),
        "epochs": mean("epochs", "{:.0f}"),
        "after, %": percent("accuracy"),
    }
    return table("target", read_results("fine_tuned")["targets"], columns)


@shown
def channels() -> str:
    found = read_results("channels")
    columns = {
        "before fine-tuning, %": percent("before"),
        f"after {found['epochs']} epochs, %": percent("accuracy"),
        "multiply-adds, %": mean("share_of_macs", "{:.1f}", 100),
        "parameters, %": mean("share_of_parameters", "{:.1f}", 100),
        "batch 64": mean("times_faster_batch_64", "{:.2f}×"),
        "batch 1": mean("times_faster_batch_1", "{:.2f}×"),
    }
    return table("method", found["methods"], columns)


@shown
def confidence() -> str:
    columns = {
        "bytes": spread("bytes", "{:,.0f}"),
        "drop on held-out examples, %": percent("held_out_drop"),
        "drop on new ones, %": percent("new_drop"),
        "missed on new ones": lambda row: f"{row['missed']} of {row['draws']}",
    }
    rows = [
        [name, f"{found['held_out']:,}", f"{found['new']:,}", of, *(cell(row) for cell in columns.values())]
        for name, found in read_results("confidence")["data"].items()
        for of, row in found["confidence"].items()
    ]
    return markdown(["data", "held out", "new", "confidence", *columns], rows)


@shown
def calibrated() -> str:
    return _by_price("calibrated")


@shown
def data_free() -> str:
    found = {name: row for name, row in read_results("data_free").items() if isinstance(row, Mapping)}
    defaults = {name: {**row["default"], **row["bytes_beside_nncodec"]} for name, row in found.items()}
    scores = {name: f"{name}, {row['score']}" for name, row in found.items()}
    columns = {
        "exact": number("dense_score", "{:.4f}"),
        "decoded": number("score", "{:.4f}"),
        "KL, nats": number("kl", "{:.4f}"),
        "kB": number("bytes", "{:,.0f}", 1e-3),
        "smaller than float32": number("times_smaller", "{:.1f}×"),
        "`grid`, beside NNCodec": number("grid", "{:.3f}"),
        "`squared-error`, beside NNCodec": number("squared-error", "{:.3f}"),
    }
    return table("network, score", {scores[name]: row for name, row in defaults.items()}, columns)


@shown
def tied_embeddings() -> str:
    found = read_results("tied_embeddings")["bytes"]
    kinds = dict.fromkeys(key.split(", ")[0] for key in found)
    losses = dict.fromkeys(key.split(", ")[1] for key in found)
    rows = {kind: {loss: found[f"{kind}, {loss}"] for loss in losses} for kind in kinds}
    return table("rounded by", rows, {f"kB, {loss} lost": spread(loss, "{:.0f}", 1e-3) for loss in losses})


@shown
def half_pruned() -> str:
    found = read_results("tied_embeddings")
    rows = {"none": found["exact_nats"], **found["nats_at_half_pruned"]}
    return table(
        "pruned to a half by", {name: {"nats": row} for name, row in rows.items()}, {"nats a token": spread("nats")}
    )


@shown
def under_code() -> str:
    return _by_price("under_code")


def _by_price(script: str) -> str:
    found = read_results(script)
    rows = {f"{float(price):,}".removesuffix(".0"): row for price, row in found["prices"].items()}
    columns = {"kB": mean("file_bytes", "{:.1f}", 1e-3), "accuracy, %": percent("accuracy")}
    exact = ["the exact network", "", f"{100 * found['dense_accuracy']:.2f}"]
    return table("price", rows, columns, [exact])


@shown
def calibrated_text() -> str:
    found = read_results("calibrated_text")
    columns = {
        "MB": number("file_bytes", scale=1e-6),
        "STS-B dev": number("judged", "{:.4f}"),
        "other text": number("other_text", "{:.3f}"),
    }
    exact = ["the exact network", "", f"{found['dense']:.4f}", "1"]
    return table("times that words' errors count", found["times_words_count"], columns, [exact])


@shown
def under_code_text() -> str:
    result = read_results("under_code_text")
    found: Row = result["found"]
    scores = ("judged", "other_text")
    size, size_before = (mean(key, scale=1e-6)(found) for key in ("file_bytes", "file_bytes_before"))
    before = [mean(f"{score}_before", "{:.4f}")(found) for score in scores]  # of all seeds
    rows = [
        ["the exact network", "", f"{result['dense']:.4f}", "1"],
        ["rounded", size_before, *before],
        ["trained under the code", size, *(spread(score, "{:.4f}")(found) for score in scores)],
    ]
    return markdown(["network", "MB", "STS-B dev", "other text"], rows)


@shown
def equal_error() -> str:
    columns: dict[str, Cell] = {
        "its qp": number("qp", "{}", 1),
        "bits a weight, ours": lambda point: f"{8 * point['laconic_bytes'] / point['weights']:.2f}",
        "bytes, ours / its": number("bytes_ratio", "{:.3f}"),
    }
    curves = read_results("codec")["equal_error"].items()
    rows = [[network, *(cell(p) for cell in columns.values())] for network, points in curves for p in points]
    return markdown(["network", *columns], rows)


@shown
def identical() -> str:
    columns: dict[str, Cell] = {
        "MB, ours": lambda row: f"{row['laconic']['bytes'] / 1e6:.2f}",
        "bytes, ours / its": number("bytes_ratio", "{:.3f}"),
        "faster, encoding": number("times_faster_encoding", "{:.1f}×"),
        "faster, decoding": number("times_faster_decoding", "{:.1f}×"),
    }
    return table("integers", read_results("codec")["identical"], columns)


@shown
def hinton_van_camp() -> str:
    found = read_results("hinton_van_camp")
    kinds = {"data": "data_bits", "weights": "weight_bits", "prior": "prior_bits", "total": "total_bits"}
    always = "draws_where_shortest"
    ways = {"shortest": f"{always}_without_the_priors_bits", "with its prior": always}
    rows = {
        name: {**row, **{way: found[key].get(name, "") for way, key in ways.items()}}
        for name, row in found["methods"].items()
    }
    columns = {
        "test error": spread("error", "{:.3f}"),
        "training error": mean("train_error", "{:.3f}"),
        **{f"{kind}, bits": mean(key, "{:.0f}") for kind, key in kinds.items()},
        **{way: number(way, "{}", 1) for way in ways},
    }
    return table("method", rows, columns)


@shown
def prequential() -> str:
    codes = list(read_results("prequential")["seeds"].values())
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


@shown
def lenets() -> str:
    columns: dict[str, Cell] = {
        "bytes": spread("bytes", "{:,.0f}"),
        "test error, %": percent("test_error"),
        "worst seed": mean("test_error", scale=100, of="max"),
        "weights left": mean("nonzero", "{:,.0f}"),
        "with labels, kbit": lambda row: f"{(8 * row['bytes']['mean'] + row['label_bits']['mean']) / 1000:.1f}",
    }
    rows: list[list[str]] = []
    for of, row in read_results("lenets")["networks"].items():
        network, _, price = of.replace("-distilled", ", distilled").partition(", price ")
        rows.append([network, price, *(cell(row) for cell in columns.values())])
    return markdown(["network", "price", *columns], rows)


@shown
def targets() -> str:
    columns = {
        "bytes": spread("bytes", "{:,.0f}"),
        "smaller": mean("times_smaller", "{:,.0f}×"),
        "held out, %": mean("score_before", scale=100),
        "after, % ": percent("score"),  # the space tells it from the other
        "test, %": mean("test_accuracy_before", scale=100),
        "after, %": percent("test_accuracy"),
        "missed by": mean("misses", "{:g}", of="max"),
    }
    rows = [
        [network, f"`{target.replace('drop=', '').replace('n_bytes=', '')}`"] + [cell(row) for cell in columns.values()]
        for network, found in read_results("targets")["tasks"].items()
        for target, row in found.items()
    ]
    return markdown(["network", "target", *map(str.strip, columns)], rows)


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


@shown
def prediction() -> str:
    return _by_measure("")


@shown
def prediction_of_files() -> str:
    return _by_measure("file_")


def _by_measure(of: str) -> str:
    """How well each measure ranks networks as trained, or `of` their files; a row a measure."""
    found = {data: read_results("prediction")[data]["measures"]["all"] for data in ("digits", "MNIST")}

    def cells(judged: Row) -> list[str]:
        regret = f"{of}regret"
        lost = mean(regret, "{:.1f}", 100)(judged), mean(regret, "{:.1f}", 100, "max")(judged)
        return [spread(f"{of}tau")(judged), spread(f"{of}rho")(judged), f"{lost[0]} ({lost[1]})"]

    rows = [
        [name, *(cell for by in found.values() for cell in (cells(by[key]) if key in by else 3 * [""]))]
        for key, name in MEASURES.items()
    ]
    return markdown(["measure", *(f"{data}: {what}" for data in found for what in ("τ", "ρ", "lost"))], rows)


def filled(page: str) -> str:
    """The page with its tables as the results are now."""
    return BETWEEN.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    for page in PAGES:
        page.write_text(filled(page.read_text()))
