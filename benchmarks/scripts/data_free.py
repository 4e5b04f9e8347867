"""`laconic compress` on trained networks of five kinds without data, beside NNCodec's dependent quantisation.

At the default, by the command: what the decoded network loses of its score, and its divergence (KL, in nats an answer)
from the exact network on the same inputs. Then bytes at equal divergence: each quantiser, and NNCodec, at several
errors. Log-divergence falls in proportion to bytes, but for chance in the rounding, so a straight line through a
method's points says how many bytes it needs for the divergence that the default's line has at the default's bytes.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import laconic
from benchmarks import peers
from benchmarks.command_line import command_line
from benchmarks.lines import log_over_bytes
from benchmarks.networks.pretrained import NETWORKS, Pretrained
from benchmarks.record_keeping import once, write_result
from laconic.quantization import Grid

LACONIC = Path(sys.executable).with_name("laconic")
DEFAULT = "laconic, the default"
ROUNDINGS = ("grid", "squared-error")
# The settings: NNCodec's qp, and relative errors; more for small networks, where chance in the rounding is larger.
MANY = (-30, -31, -32, -33, -34, -35, -36), (0.016, 0.02, 0.025, 0.03, 0.037, 0.045)
SETTINGS: Mapping[str, tuple[Sequence[int], Sequence[float]]] = {
    "ResNet-20": MANY,
    "ResNet-32": MANY,
    "EfficientNet-Lite0": ((-33, -36), (0.02, 0.045)),
    "MiniLM": ((-33, -36), (0.02, 0.045)),
    "SmolLM2-135M": ((-26, -30), (0.02, 0.045)),
}
NNCODEC = "NNCodec, dependent quantisation"


@cache
def network(name: str) -> Pretrained:
    return NETWORKS[name]()


def state_of(name: str) -> dict[str, Tensor]:
    """The floats of the network, tied ones once."""
    found = dict[int, tuple[str, Tensor]]()
    for key, tensor in network(name).model.state_dict(keep_vars=True).items():
        if tensor.is_floating_point():
            found.setdefault(id(tensor), (key, tensor.detach().contiguous()))
    return dict(found.values())


def by_command(name: str, *options: str) -> dict[str, float]:
    """What `laconic compress` makes of a safetensors file of the network."""
    with tempfile.TemporaryDirectory() as folder:
        exact, path = Path(folder) / "exact.safetensors", Path(folder) / "network.lac"
        save_file(state_of(name), exact)
        subprocess.run([LACONIC, "compress", exact, "-o", path, *options], check=True)
        return judged(name, laconic.load(path), path.stat().st_size)


def by_nncodec(name: str, qp: int) -> dict[str, float]:
    arrays = {key: tensor.numpy() for key, tensor in state_of(name).items()}
    figures, decoded = peers.run("nncodec_peer", arrays, qp=qp, use_dq=True, repeats=1)
    return judged(name, {key: torch.from_numpy(array) for key, array in decoded.items()}, figures["bytes"])


def judged(name: str, decoded: Mapping[str, Tensor], n_bytes: int) -> dict[str, float]:
    of = network(name)
    model = copy.deepcopy(of.model)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key in decoded:  # tied tensors fill each other
                tensor.copy_(decoded[key].reshape(tensor.shape))
    float_bytes = 4 * sum(tensor.numel() for tensor in state_of(name).values())
    return {"bytes": n_bytes, "times_smaller": float_bytes / n_bytes, **of.compared(model)}


def point(name: str, method: str, setting: float) -> dict[str, float]:
    if method == NNCODEC:
        return by_nncodec(name, int(setting))
    if method == DEFAULT:
        return by_command(name)
    return by_command(name, "--rounding", method, "--relative-error", str(setting))


def line(points: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Slope and intercept of log-divergence over bytes."""
    return log_over_bytes(points, "kl")


def measured(name: str) -> dict[str, Any]:
    qps, errors = SETTINGS[name]
    settings: dict[str, Sequence[float]] = {**dict.fromkeys(ROUNDINGS, errors), NNCODEC: qps}
    points = {method: [once(__file__, point, name, method, s) for s in settings[method]] for method in settings}
    default = once(__file__, point, name, DEFAULT, Grid().relative_error)
    lines = {method: line([*points[method], *([default] * (method == "grid"))]) for method in settings}
    log_kl = lines["grid"][0] * default["bytes"] + lines["grid"][1]
    needed = {method: (log_kl - intercept) / slope for method, (slope, intercept) in lines.items()}
    ratios = {method: needed[method] / needed[NNCODEC] for method in ROUNDINGS}
    return {
        "score": network(name).score,
        "default": default,
        "bytes_at_equal_kl": needed,
        "bytes_beside_nncodec": ratios,
        "points": {m: [{"setting": s, **p} for s, p in zip(settings[m], points[m], strict=True)] for m in settings},
    }


def main(names: Sequence[str]) -> None:
    results = {name: measured(name) for name in names}
    write_result(__file__, {"relative_error": Grid().relative_error, **results})


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main(list(NETWORKS))
