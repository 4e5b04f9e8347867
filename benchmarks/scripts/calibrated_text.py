"""MiniLM rounded by rate and loss with calibration sentences, without fine-tuning or labels.

The rounding is `networks.calibrated_minilm`'s, whose words' errors count several times. Scores are those of
`networks.minilm`: people's judgements, and text of another kind.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.command_line import command_line
from benchmarks.networks import minilm
from benchmarks.networks.calibrated_minilm import N_SENTENCES, save_rounded
from benchmarks.record_keeping import once, write_result

PRICE = 1e7  # bits for a squared error of 1
WORDS_COUNT = (15, 25, 50)  # times


def run(words_count: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.lac"
        save_rounded(path, words_count, PRICE)
        return minilm.scored(path)


def main() -> None:
    rows = {str(times): once(__file__, run, times) for times in WORDS_COUNT}
    result = {"sentences": N_SENTENCES, "price": PRICE, "dense": minilm.judged(minilm.encoder())}
    write_result(__file__, {**result, "times_words_count": rows})


if __name__ == "__main__":
    command_line(__doc__).parse_args()
    main()
