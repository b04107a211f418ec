"""`python -m train RUN.toml`, or `torchrun --nproc-per-node N -m train RUN.toml`.

Exit status 0 means done, 1 that training failed, 2 a faulty run file, 128 + n that signal n stopped the training (the
same command continues it).
"""

from __future__ import annotations

import os
import signal
import sys


def main(arguments: list[str]) -> int:
    """The path of a run file -> the exit status."""
    try:
        _begin()
    except ImportError as error:
        print(error, file=sys.stderr)
        return 2
    from train.trainer import run as runs

    if len(arguments) != 1:
        print("usage: python -m train RUN.toml", file=sys.stderr)
        return 2
    try:
        run = runs.read(arguments[0])
    except runs.RunError as error:
        print(error, file=sys.stderr)
        return 2
    from train.trainer import loop

    try:
        result = loop.train(run)
    except (loop.TrainError, ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") == "0":
        recall = "" if result.recall is None else f", held-out recall {result.recall:.3f}"
        print(f"{result.reason} after {result.step} steps{recall}; {len(result.bad)} bad media; model: {result.model}")
    if result.reason.startswith("SIG"):
        return 128 + signal.Signals[result.reason]
    return 0


def _begin() -> None:
    """Raises ImportError, with one sentence, where another project's file has the name of one of our packages."""
    import bind

    try:
        from bind import origin
    except ImportError:
        raise ImportError(
            f"Crossbind cannot start: its package 'bind' is hidden by {bind.__file__}; rename that file or folder"
        ) from None
    origin.check()
    origin.leave_folder()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
