"""`import routellm` does nothing but define names: no socket, no environment, no heavy library."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PROBE = """
import json, os, sys

IMPORTED = sys.argv[1]
sockets, reads = [], []

def audit(event, arguments):
    if event.startswith("socket.") or event in ("os.getenv", "urllib.Request"):
        sockets.append(event)

class Recording(type(os.environ)):
    '''The environment, noting each name that code of this package asks for; the standard library may ask what it likes.'''

    def _note(self, name):
        frame = sys._getframe(2)
        while frame is not None and "importlib" not in frame.f_code.co_filename:
            if os.sep + "routellm" + os.sep in frame.f_code.co_filename:
                reads.append(str(name))
                return
            frame = frame.f_back

    def __getitem__(self, name):
        self._note(name)
        return super().__getitem__(name)

    def __iter__(self):
        self._note("*")
        return super().__iter__()

    def __contains__(self, name):
        self._note(name)
        return super().__contains__(name)

os.environ.__class__ = Recording
sys.addaudithook(audit)
for module in IMPORTED.split(","):
    __import__(module)
print(json.dumps({"sockets": sockets, "reads": reads, "modules": sorted({name.split(".")[0] for name in sys.modules})}))
"""

HEAVY = {
    "aiohttp", "anthropic", "datasets", "gradio", "httpx", "httpx2", "huggingface_hub", "litellm", "matplotlib", "model2vec",
    "onnx", "onnxruntime", "openai", "opentelemetry", "pandas", "prometheus_client", "pyarrow", "ray", "requests", "rich",
    "safetensors", "scipy", "sklearn", "starlette", "tokenizers", "torch", "transformers", "uvicorn", "uvloop",
}  # fmt: skip


def probe(modules: str, code: str = PROBE) -> dict[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", code, modules], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, list[str]] = json.loads(done.stdout)
    return result


def test_importing_the_package_opens_nothing_reads_nothing_and_loads_little() -> None:
    seen = probe("routellm")
    assert seen["sockets"] == []
    assert seen["reads"] == []
    assert set(seen["modules"]) & (HEAVY | {"numpy", "msgspec", "yaml"}) == set()


@pytest.mark.parametrize(
    "module",
    [
        "routellm.cli",
        "routellm.config",
        "routellm.controller",
        "routellm.decider",
        "routellm.routers.mf",
        "routellm.routers.causal_llm",
        "routellm.calibrate_threshold",
        "routellm.route_prompt",
        "routellm.openai_server",
        "routellm.upstream.base",
        "routellm.embeddings.base",
    ],
)
def test_no_module_does_anything_on_import(module: str) -> None:
    seen = probe(module)
    assert seen["sockets"] == []
    assert seen["reads"] == []
    assert set(seen["modules"]) & {"torch", "litellm", "onnxruntime", "openai", "pandas", "gradio", "uvicorn"} == set()


def test_the_command_is_quick_to_say_its_version() -> None:
    loaded = set(probe("routellm.cli")["modules"])
    assert loaded & (HEAVY | {"numpy", "msgspec", "yaml"}) == set()


def test_the_probe_sees_what_it_looks_for(tmp_path: Path) -> None:
    package = tmp_path / "routellm"
    package.mkdir()
    (package / "__init__.py").write_text(
        "import os, socket\nos.environ.get('A_KEY')\nos.getenv('B_KEY')\nsocket.socket().close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", PROBE, "routellm"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    seen = json.loads(done.stdout)
    assert seen["reads"] == ["A_KEY", "B_KEY"]
    assert seen["sockets"] == ["socket.__new__"]
