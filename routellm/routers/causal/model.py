"""A causal language model, run by torch and transformers (extra `torch`), and where it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from routellm.errors import CheckpointError, ConfigError, MissingExtraError

if TYPE_CHECKING:
    import torch

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where and how a model runs.

    Attributes:
        device: "auto" (a GPU where there is one and torch is installed), "cpu", "cuda", "cuda:1".
        dtype: "auto" (bfloat16 on a GPU, float32 on a CPU), or one of `DTYPES`.
        flash_attention_2: use that implementation of attention; needs the package flash-attn and a GPU.

    Raises:
        ConfigError: there is no such type.
    """

    device: str = "auto"
    dtype: str = "auto"
    flash_attention_2: bool = False

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype of causal_llm is {self.dtype!r}; it must be one of {', '.join(DTYPES)}.")

    def beyond_numpy(self) -> str | None:
        """What of it takes torch, as it reads after "a model"; None on a CPU in float32."""
        if self.flash_attention_2:
            return "with flash_attention_2"
        if self.device not in ("auto", "cpu"):
            return f"on the device {self.device!r}"
        if self.dtype not in ("auto", "float32"):
            return f"in {self.dtype}"
        return "on a GPU" if self.device == "auto" and _has_gpu() else None

    def names(self) -> tuple[str, str]:
        """Kind of device and type of numbers, such as "cpu" and "float32".

        Raises:
            ConfigError: there is no such device.
            MissingExtraError: they take torch, which is not installed.
        """
        beyond = self.beyond_numpy()
        if beyond is None:
            return "cpu", "float32"
        libraries(f"The router 'causal_llm' with a model {beyond}")
        device, dtype = self.resolve()
        return str(device.type), str(dtype).removeprefix("torch.")

    def resolve(self) -> tuple[torch.device, torch.dtype]:
        """Device and type in torch.

        Raises:
            ConfigError: there is no such device.
            MissingExtraError: torch is not installed.
        """
        torch, _ = libraries()
        try:
            device = torch.device(("cuda" if _has_gpu() else "cpu") if self.device == "auto" else self.device)
        except (RuntimeError, TypeError) as error:
            raise ConfigError(f"device of causal_llm is {self.device!r}; it must be auto, cpu, cuda or cuda:N.") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ConfigError(f"device of causal_llm is {self.device!r}, but torch finds no GPU here. Set it to cpu, or auto.")
        name = self.dtype if self.dtype != "auto" else "float32" if device.type == "cpu" else "bfloat16"
        return device, getattr(torch, name)


def libraries(what: str = "The router 'causal_llm'") -> tuple[Any, Any]:
    """The modules torch and transformers.

    Args:
        what: needs them; for the message.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError as error:
        raise MissingExtraError(what, "torch") from error
    return torch, transformers


def _has_gpu() -> bool:
    """Whether torch finds a GPU. It is asked only where there may be one, since importing it takes seconds."""
    if not all(find_spec(name) for name in ("torch", "transformers")):
        return False
    # NVIDIA's driver, those of its small boards, AMD's, and Windows' for Linux.
    drivers = ("nvidiactl", "nvhost-gpu", "nvgpu", "kfd", "dxg")
    if sys.platform == "darwin" or (sys.platform == "linux" and not any(Path("/dev", name).exists() for name in drivers)):
        return False
    import torch

    return bool(torch.cuda.is_available())


def load_model(folder: Path, placement: Placement) -> Any:
    """The language model in a folder, ready to score. Reads safetensors only, and runs no code of the folder's.

    Raises:
        CheckpointError: the folder holds no such model.
        ConfigError: the placement can't be had.
    """
    _, transformers = libraries()
    device, dtype = placement.resolve()
    attention = {"attn_implementation": "flash_attention_2"} if placement.flash_attention_2 else {}
    try:
        with quiet(transformers):
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True, **attention
            )
    except Exception as error:  # transformers and safetensors raise many kinds
        if attention:
            raise ConfigError(f"{folder}: can't be loaded with flash_attention_2: {error}") from error
        raise CheckpointError(
            f"{folder}: holds no language model in safetensors that transformers can load: {error}"
        ) from error
    if report["missing_keys"] or report["mismatched_keys"]:
        names = [*report["missing_keys"], *report["mismatched_keys"]]
        raise CheckpointError(f"{folder}: these weights are missing or of another shape: {', '.join(map(str, names[:5]))}.")
    return model.to(device).eval()


class quiet:  # noqa: N801 - reads as a statement: `with quiet(transformers)`
    """Keeps transformers' bars and advice off the terminal while it loads."""

    def __init__(self, transformers: Any) -> None:
        self._logging = transformers.utils.logging

    def __enter__(self) -> None:
        self._level = self._logging.get_verbosity()
        self._bars = self._logging.is_progress_bar_enabled()
        self._logging.set_verbosity_error()
        self._logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        self._logging.set_verbosity(self._level)
        if self._bars:
            self._logging.enable_progress_bar()


class TorchModel:
    """A model of transformers, in evaluation mode, as a `rater.LanguageModel`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def vocabulary(self) -> int:
        """How many tokens it has logits for."""
        return int(self._model.get_output_embeddings().out_features)

    def remember(self, ids: Sequence[int]) -> None:
        """Nothing: a text is read whole."""

    def last_logits(self, texts: Sequence[Sequence[int]]) -> NDArray[np.float64]:
        """Logits of the token after each text, shape (len(texts), vocabulary)."""
        import torch

        with torch.inference_mode():
            return np.asarray(last_logits(self._model, texts).double().cpu().numpy(), dtype=np.float64)


def last_logits(model: Any, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """Logits of the token after each text, shape (len(texts), vocabulary). Shorter texts are padded on the left."""
    import torch

    longest = max(map(len, texts))
    ids = torch.zeros((len(texts), longest), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, longest - len(text) :] = torch.tensor(text)
        mask[row, longest - len(text) :] = 1
    more: dict[str, torch.Tensor] = {}
    if not bool(mask.all()):  # positions count from a text's own first token
        more = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    more = {name: tensor.to(model.device) for name, tensor in {"input_ids": ids, **more}.items()}
    output: torch.Tensor = model(**more, use_cache=False, logits_to_keep=1).logits[:, -1]
    return output
