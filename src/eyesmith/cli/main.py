"""The `eyesmith` command: its verbs, and the one place where errors become messages and exit statuses."""

import atexit
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from eyesmith import __version__
from eyesmith.cli.dispatch import Verb, dispatch
from eyesmith.cli.failures import explain
from eyesmith.errors import ConfigError

ABOUT = f"eyesmith {__version__}: design, train and measure the image encoders of vision-language models."

VERBS = {
    "quickstart": Verb("eyesmith.cli.quickstart", "the main job on real data: make pairs, train, evaluate, report"),
    "models": Verb("eyesmith.cli.models", "the table of models: parameters, multiply-adds, sizes"),
    "train": Verb("eyesmith.cli.train", "train a recipe; its folder is a model"),
    "resume": Verb("eyesmith.cli.resume", "go on with a run that was stopped"),
    "branch": Verb("eyesmith.cli.branch", "let the rate of a constant-rate run fall from a kept state on"),
    "alternate": Verb("eyesmith.cli.alternate", "CLIP, masked images, CLIP again: EVA-02's alternation"),
    "replay": Verb("eyesmith.cli.replay", "run a step again that was not finite, and see where it went wrong"),
    "average": Verb("eyesmith.cli.average", "one model out of several of its kind: weights averaged"),
    "eval": Verb("eyesmith.cli.eval", "zero-shot classification and retrieval on a data set"),
    "compare": Verb("eyesmith.cli.compare", "is one model really better than another: paired, with significance"),
    "compare-models": Verb(
        "eyesmith.cli.compare_models", "two models on your own images: right, fast, small, licensed"
    ),
    "probe": Verb("eyesmith.cli.probe", "linear, few-shot and Gaussian heads on frozen features"),
    "classify": Verb("eyesmith.cli.classify", "which of some names fits each of your images"),
    "embed": Verb("eyesmith.cli.embed", "features of your images, in an .npz file"),
    "search": Verb("eyesmith.cli.search", "find your images by text"),
    "segment": Verb("eyesmith.cli.segment", "outline named things in your images, overlays drawn"),
    "detect": Verb("eyesmith.cli.detect", "find named things in your images, overlays drawn"),
    "chat": Verb("eyesmith.cli.chat", "ask a language model with an eye about a picture"),
    "chat-eval": Verb("eyesmith.cli.chat_eval", "a chat model on LLaVA's twelve benchmarks, and MMVP"),
    "convert": Verb("eyesmith.cli.convert", "weights into the layout of open_clip, timm or the hub, checked"),
    "export": Verb("eyesmith.cli.export", "the model as ONNX or torch.export, checked"),
    "verify": Verb("eyesmith.cli.verify", "prove that a run folder holds the model that was trained"),
    "data": Verb("eyesmith.cli.data", "make data sets, find what is wrong with one"),
    "curate": Verb("eyesmith.cli.curate", "filter, balance and clean a pool of pairs; write its shards"),
    "lab": Verb("eyesmith.cli.lab", "compare image encoders over sizes, budgets, data and recipes"),
    "report": Verb("eyesmith.cli.report", "a leaderboard page out of result files, beside the papers' numbers"),
    "bench": Verb("eyesmith.cli.bench", "our speed beside our peers'"),
}


def register_encoders(words: list[str]) -> list[str]:
    """Register the files of `--encoder FILE` before the verb, which may stand there several times; returns the rest.

    A file is run, which only its user can ask for: it is how a run with an encoder of one's own is opened.
    """
    while words and words[0].partition("=")[0] == "--encoder":
        _, given, file = words.pop(0).partition("=")
        if not given:
            if not words:
                raise ConfigError("--encoder: expected a Python file that defines an encoder after it")
            file = words.pop(0)
        from eyesmith.models.registry import register_encoder  # brings torch, which most wrong commands never need

        register_encoder(file)
    return words


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (sys.argv when None) and return its exit status; never raises."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:  # as a program: once the work is over, Ctrl-C no longer changes how it ends
        atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    _open_streams()
    try:
        if words and words[0] in ("--version", "-V"):
            print(f"eyesmith {__version__}")
            status = 0
        else:
            words = register_encoders(words)
            status = dispatch(VERBS, words, prog="eyesmith", about=ABOUT)
        sys.stdout.flush()
        return status
    except SystemExit as stop:  # the argument parser's, after --help
        return _flushed(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
    except BaseException as error:
        if argv is None and isinstance(error, KeyboardInterrupt):  # a second one ends it at once, as quietly
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
        return explain(error)


def _open_streams() -> None:
    """Let there be a stdout and stderr that can be written: closed ones swallow, a full pipe waits for its reader."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # as after `>&-`
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - for as long as we run
            continue
        with suppress(OSError, ValueError):  # no file at all, as in a notebook
            os.set_blocking(stream.fileno(), True)


def _flushed(status: int) -> int:
    try:
        sys.stdout.flush()
    except OSError as error:
        return explain(error)
    return status


if __name__ == "__main__":
    sys.exit(main())
