"""The command line: the only place where strings become choices.

Damaged input prints one line and exits with 1, wrong use with 2, a target that is missed with 3, Ctrl-C with 130.
Heavy imports happen inside the commands, so that `laconic --help` is instant.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from laconic.cli.options import (
    Base,
    BaseKey,
    Force,
    Key,
    Output,
    Threads,
    drop,
    flag,
    flag_with_data,
    n_bytes,
    named,
    named_with_data,
    with_data,
)
from laconic.core.text import did_you_mean

DAMAGED, WRONG_USE, MISSED, INTERRUPTED = 1, 2, 3, 130
UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # Click's, or Typer's own copy of it

app = typer.Typer(
    name="laconic",
    help="Turn a trained network into the shortest file that still does its job.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode="markdown",
)


class StoppedError(Exception):
    """Ctrl-C, with something to say."""


@contextmanager
def _going_on_from(what: str) -> Generator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise StoppedError(f"interrupted; {what}, and the same command goes on from there") from None


class Data(StrEnum):
    """The demo's data sets."""

    DIGITS = "digits"
    MNIST = "mnist"
    BLOBS = "blobs"


class Rounding(StrEnum):
    """How weights become integers without data."""

    GRID = "grid"
    SQUARED_ERROR = "squared-error"


RELATIVE_ERROR = 0.025


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context, version: Annotated[bool, flag("--version", help="Print the version.")] = False
) -> None:
    """Turn a trained network into the shortest file that still does its job."""
    if version:
        from laconic import __version__

        print(__version__)
    elif context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def demo(
    data: Annotated[Data, typer.Option(help="What to train on.")] = Data.DIGITS,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write.")] = Path(
        "laconic-demo"
    ),
    seed: Annotated[int, typer.Option(metavar="N", help="Of initial weights and order of training.")] = 0,
) -> None:
    """Train a network, prune it round by round, and show what each step costs in bits."""
    from laconic.cli.demo import run

    run(data.value, output, seed, Console())


def _show_axes(wanted: bool) -> None:
    if wanted:
        from laconic.cli.prune import axes

        Console().print(axes())
        raise typer.Exit


@app.command()
def prune(  # noqa: PLR0913 – typer reads them
    recipes: Annotated[list[Path], typer.Argument(help="Recipes, as TOML files.", metavar="RECIPE")],
    model: Annotated[str, named(help="A function without arguments that returns the network.")],
    data: Annotated[
        str,
        named(
            help="A function that returns batches (inputs, targets), a pair (train, test) of such, or a "
            "laconic.datasets.Dataset."
        ),
    ],
    test: Annotated[str | None, named(help="Batches to judge by, if --data has none.")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder of runs.")] = Path(
        "runs"
    ),
    seeds: Annotated[
        str | None,
        typer.Option(help="Run each recipe once for each: 0,1,2 or 0-2. By default the recipe's.", metavar="SEEDS"),
    ] = None,
    axes: Annotated[
        bool, flag("--axes", help="List all that a recipe can choose.", callback=_show_axes, is_eager=True)
    ] = False,
) -> None:
    """Prune a network of yours by a recipe, and write the file, a report and a table.

    A recipe is a small TOML file, such as:

        amount = 0.9             # the fraction of weights to remove
        criterion = "magnitude"  # the smallest go first
        training = {epochs = 4}  # afterwards, with what went held at zero

    Run it on a network and on data that functions of yours return; the current folder is searched first:

        laconic prune magnitude.toml --model mine:network --data mine:batches

    What is finished is not repeated: after Ctrl-C, the same command goes on.
    """
    from laconic.cli.prune import prune as run_recipes

    numbers = [seed for text in seeds.split(",") for seed in _seeds(text)] if seeds else [None]
    given = {"--model": model, "--data": data, **({"--test": test} if test else {})}
    with _going_on_from(f"{output} keeps what was trained"):
        run_recipes(recipes, given, output, numbers)


def _seeds(text: str) -> range:
    """One whole number, or a range of them."""
    first, dash, last = map(str.strip, text.partition("-"))
    if not first.isdigit() or not (last if dash else first).isdigit():
        raise UsageError(f"--seeds: expected whole numbers such as 0,1,2 or 0-2, found {text.strip()!r}")
    return range(int(first), int(last if dash else first) + 1)


@app.command()
def compress(  # noqa: PLR0913 – typer reads them
    checkpoint: Annotated[
        str,
        typer.Argument(
            help="A safetensors or PyTorch file, a folder or an index of such; with --data, a function without "
            "arguments that returns the network.",
            metavar="CKPT|MODULE:NAME",
        ),
    ],
    output: Output,
    relative_error: Annotated[
        float | None,
        typer.Option(
            help="‖w − ŵ‖ / ‖w‖ of the largest layer, smaller ones get less; with squared-error, of all together.",
            show_default=str(RELATIVE_ERROR),
            metavar="ERROR",
        ),
    ] = None,
    rounding: Annotated[
        Rounding | None,
        typer.Option(
            help="`grid`: the nearest integers, at errors by layer. `squared-error`: by bits against the squared error "
            "of all layers together.",
            show_default="grid",
            metavar="HOW",
        ),
    ] = None,
    lossless: Annotated[bool, flag("--lossless", help="Keep every bit of every tensor.")] = False,
    key: Key = None,
    base: Base = None,
    base_key: BaseKey = None,
    include: Annotated[
        list[str] | None,
        typer.Option(help="Tensors to compress instead of all matrices: a name or re:PATTERN.", metavar="NAME"),
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Tensors to store exactly.", metavar="NAME")] = None,
    threads: Threads = None,
    force: Force = False,
    data: Annotated[
        str | None,
        named_with_data(
            help="A function that returns batches (inputs, targets), a pair (train, test) of such, or a "
            "laconic.datasets.Dataset."
        ),
    ] = None,
    evaluate: Annotated[
        str | None,
        named_with_data(
            help="A function from a network to its score, the higher the better; by default the accuracy on "
            "the test part, or else on the data."
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        with_data(help="The shortest file that scores at most so much less.", parser=drop, metavar="0.01|1%"),
    ] = None,
    max_bytes: Annotated[
        int | None, with_data(help="The best network in so many bytes.", parser=n_bytes, metavar="SIZE")
    ] = None,
    shortest: Annotated[
        bool,
        flag_with_data(
            "--shortest", help="An experiment: the fewest bits for the file and for the labels it predicts."
        ),
    ] = False,
    epochs: Annotated[
        int, with_data(help="Fine-tune for so many at each price, by Adam at a rate of 0.001.", min=0, metavar="N")
    ] = 0,
    keep: Annotated[
        Path | None, with_data(help="Keep what was tried, for another target of the same network.", metavar="FOLDER")
    ] = None,
) -> int:
    r"""Code a checkpoint's weights at a stated error, or exactly; or, with data, a network to a target.

    Without data, safetensors are read tensor by tensor. What is finished is kept in OUTPUT.part: after
    Ctrl-C, the same command goes on.

    With data, the price of a bit is searched for at which the file that is written, decoded and judged meets
    the target, one of --max-drop, --max-bytes and --shortest:

        laconic compress mine:network -o net.lac \
            --data mine:batches --max-drop 0.01

    What was tried is kept in OUTPUT.attempts, or by --keep: after Ctrl-C, the same command goes on.
    A target that is missed exits with 3, and the file that misses it least is there.
    """
    _refuse_overwrite(output, force)
    targets = {"--max-drop": max_drop, "--max-bytes": max_bytes, "--shortest": shortest or None}
    goals = [option for option, value in targets.items() if value is not None]
    judged = [*goals, *_given({"--evaluate": evaluate, "--epochs": epochs, "--keep": keep})]
    stored = _given({"--lossless": lossless, "--include": include, "--exclude": exclude, "--key": key, "--base": base})
    stored += _given({"--relative-error": relative_error is not None, "--rounding": rounding, "--threads": threads})
    stored += _given({"--base-key": base_key})
    rounded = [option for option in stored if option in {"--include", "--relative-error", "--rounding"}]
    if data is None and judged:
        raise UsageError(f"{judged[0]}: expected with --data")
    if data is not None and stored:
        raise UsageError(f"{stored[0]}: expected without --data")
    if data is not None and len(goals) != 1:
        raise UsageError(f"{', '.join(targets)}: expected one of them, found {' and '.join(goals) or 'none'}")
    if lossless and rounded:
        raise UsageError(f"{rounded[0]}: expected without --lossless, which codes all tensors exactly")
    error = RELATIVE_ERROR if relative_error is None else relative_error
    if not 0 < error < 1:
        raise UsageError(f"--relative-error: expected within (0, 1), found {error}")
    if data is None:
        with _going_on_from(f"{output}.part keeps what was coded"):
            from laconic.cli import checkpoints

            options = {"include": include, "exclude": exclude or (), "key": key}
            options["base"] = checkpoints.parent(base, base_key)
            chosen = None if lossless else (rounding or Rounding.GRID, error)
            print(checkpoints.encode(Path(checkpoint), output, chosen, threads, **options))
            return 0
    with _going_on_from(f"{keep or f'{output}.attempts'} keeps what was tried"):
        from laconic.cli.compress import search, target_of

        references = {"MODULE:NAME": checkpoint, "--data": data, **({"--evaluate": evaluate} if evaluate else {})}
        missed = search(references, output, target_of(max_drop, max_bytes), epochs, keep)
    return _complain(missed, MISSED) if missed else 0


def _given(options: Mapping[str, object]) -> list[str]:
    return [option for option, value in options.items() if value]


@app.command()
def decompress(  # noqa: PLR0913 – typer reads them
    file: Annotated[Path, typer.Argument(help="A .lac file.")],
    output: Output,
    only: Annotated[
        list[str] | None, typer.Option(help="Decode only these tensors: a name or re:PATTERN.", metavar="NAME")
    ] = None,
    base: Base = None,
    base_key: BaseKey = None,
    shard_bytes: Annotated[
        int, typer.Option(help="Write more than this to several files, with an index.", parser=n_bytes, metavar="SIZE")
    ] = "5GiB",  # pyright: ignore[reportArgumentType] – parsed
    threads: Threads = None,
    force: Force = False,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Refuse to decode to more; by default a thousand times the file's.", parser=n_bytes, metavar="SIZE"
        ),
    ] = None,
) -> None:
    """Decode a .lac file to safetensors."""
    _refuse_overwrite(output, force)
    from laconic.cli import checkpoints

    options = {"base": checkpoints.parent(base, base_key), "shard_bytes": shard_bytes, "force": force}
    print(checkpoints.decode(file, output, only or (), limit, threads, **options))


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .lac file.")],
    as_json: Annotated[bool, flag("--json", help="Print JSON.")] = False,
    long: Annotated[bool, flag("--long", help="Whole names, and which models code each tensor.")] = False,
) -> None:
    """List a file's tensors: shape, type, how they are coded, zeros, bits a weight, bytes.

    Every checksum is checked, and every tensor is decoded to count its zeros.
    """
    from laconic.cli.checkpoints import inspection
    from laconic.file.contents import inspect as read

    found = read(file)
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        console = Console()
        console.print(inspection(found, long, console.width))


def _refuse_overwrite(output: Path, force: bool) -> None:
    if output.is_dir() or not output.absolute().parent.is_dir():
        raise UsageError(f"{output}: expected a file in a folder that exists")
    from laconic.core.atomic import check_output

    check_output(output)
    if output.exists() and not force:
        raise UsageError(f"{output} exists; add --force to replace it")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):  # what a console's encoding lacks is shown as "?", and stops nothing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    from laconic.errors import FormatError, LaconicError, LimitError, UnsupportedError

    try:
        code = app(arguments, standalone_mode=False) or 0
        if code == INTERRUPTED:  # some versions of Typer turn Ctrl-C into this code, without a word
            raise KeyboardInterrupt
        return code
    except UsageError as error:
        message: str = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
        if found := re.fullmatch(r"No such command '(.*)'\.", message):
            message = f"expected a command, found {found[1]!r}{_commands_like(found[1])}"
        return _complain(message, WRONG_USE)
    except (FormatError, LimitError, UnsupportedError) as error:
        return _complain(error, DAMAGED)
    except OSError as error:
        return _complain(f"{error.filename}: {error.strerror}" if error.filename else error, WRONG_USE)
    except (LaconicError, ValueError, ImportError) as error:
        return _complain(error, WRONG_USE)
    except (KeyboardInterrupt, typer.Abort, StoppedError) as error:
        return _complain(str(error) or "interrupted; what was finished is kept", INTERRUPTED)


def _commands_like(found: str) -> str:
    names = [command.callback.__name__ for command in app.registered_commands if command.callback]
    return did_you_mean(found, names) or f"; there are {', '.join(names)}; see laconic --help"


def _complain(message: object, code: int) -> int:
    print("laconic: " + " ".join(str(message).split()), file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
