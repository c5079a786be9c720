"""A shipped router fitted to one's own traffic from some hundred labels: `routellm adapt` makes its checkpoints.

The prior routers' scores are part of the sum, as much as they proved worth on the labels.
"""

from __future__ import annotations

from routellm.routers.parts_router import PartsRouter

KIND = "adapted"


class AdaptedRouter(PartsRouter):
    """Scores a prompt by a checkpoint that `routellm adapt` wrote.

    Args:
        checkpoint_path: its folder, or a hub repository.

    Raises:
        CheckpointError: the checkpoint can't be read, or one of the routers that it was fitted on top of is another one now.
    """

    kind = KIND
    remedy = "Run `routellm adapt` again on the same labels."

    def __init__(self, checkpoint_path: str) -> None:
        super().__init__(checkpoint_path)
