"""The project's own routers: what the strong model gains on a prompt, by parts fitted to the results of many models.

Two sizes of one family. `gain_fast` looks at the bundled table of word vectors and at a prompt's make-up, in microseconds.
`gain_accurate` looks at the vectors of a small encoder (that of the router `bert`) in place of the table's, in milliseconds.
How the parts are fitted, and what each is worth, is in `routellm.training.gain` and in docs/routers.md.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from routellm.routers.parts_router import PartsRouter

_DATA = files("routellm.routers") / "data"


class FastGainRouter(PartsRouter):
    """Scores a prompt by its word vectors and its make-up.

    Args:
        checkpoint_path: a folder that `routellm train gain_fast` wrote, or a hub repository; None takes the shipped one.

    Raises:
        CheckpointError: the checkpoint can't be read.
    """

    kind = "gain_fast"
    remedy = "Run `routellm train` again on the same data."

    def __init__(self, checkpoint_path: str | None = None) -> None:
        super().__init__(Path(str(_DATA / self.kind)) if checkpoint_path is None else checkpoint_path)


class AccurateGainRouter(FastGainRouter):
    """Scores a prompt as `gain_fast` does, by an encoder's vectors in place of the table's.

    Args:
        checkpoint_path: a folder that `routellm train gain_accurate` wrote, or a hub repository; None takes the shipped one.

    Raises:
        CheckpointError: the checkpoint can't be read, or its encoder is another one now.
        MissingExtraError: the extra `onnx` is not installed.
    """

    kind = "gain_accurate"
    batches = False  # nearly all of its time goes to the encoder, which takes prompts one by one
