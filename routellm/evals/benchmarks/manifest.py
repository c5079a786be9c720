"""The pins of the benchmarks' files: addresses, sizes and hashes, as data of the package.

`data/NAME.json` holds the address of a folder at one commit, and for each file below it size and sha256. It is made from a
local copy of that folder::

    python -m routellm.evals.benchmarks.manifest https://raw.githubusercontent.com/OWNER/REPO/COMMIT/FOLDER \\
        --copy path/to/FOLDER --files "responses/*.csv" contaminated_prompts.jsonl --licence Apache-2.0 --output NAME.json
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from routellm.commands import command_parser, run_command
from routellm.downloads import RemoteFile, sha256
from routellm.errors import DataError

_DATA = Path(__file__).parent / "data"
_EXAMPLES = 'python -m routellm.evals.benchmarks.manifest URL --copy FOLDER --files "*.csv" --licence MIT --output mine.json'


@lru_cache
def manifest(name: str) -> dict[str, Any]:
    """What `data/NAME.json` holds: `url`, `licence`, and `files` (path -> [size, sha256])."""
    content: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_bytes())
    return content


def pinned(name: str, path: str) -> RemoteFile:
    """One file of the manifest `data/NAME.json`, by its path below the manifest's address."""
    held = manifest(name)
    size, digest = held["files"][path]
    return RemoteFile(f"{held['url']}/{path}", size, digest)


def pinned_paths(name: str) -> list[str]:
    """The paths of all files of a manifest, in its order."""
    return list(manifest(name)["files"])


def make_manifest(url: str, copy: Path, patterns: Sequence[str], licence: str) -> dict[str, Any]:
    """What `data/NAME.json` holds.

    Args:
        url: the address of the folder that `copy` is a copy of, at a commit.
        patterns: paths below it, `*` allowed; each must match.
        licence: of the files, as an SPDX identifier or in words.

    Raises:
        DataError: a pattern matches no file.
    """
    files: dict[str, tuple[int, str]] = {}
    for pattern in patterns:
        found = sorted(path for path in copy.glob(pattern) if path.is_file())
        if not found:
            raise DataError(f"No file in {str(copy)!r} matches {pattern!r}.")
        files |= {path.relative_to(copy).as_posix(): (path.stat().st_size, sha256(path)) for path in found}
    return {"url": url.rstrip("/"), "licence": licence, "files": files}


def format_manifest(content: dict[str, Any]) -> str:
    """JSON with a line for each file."""
    lines = ",\n".join(f"    {json.dumps(path)}: {json.dumps(pin)}" for path, pin in content["files"].items())
    head = "".join(f"  {json.dumps(key)}: {json.dumps(content[key])},\n" for key in ("url", "licence"))
    return f'{{\n{head}  "files": {{\n{lines}\n  }}\n}}\n'


def build_parser(prog: str = "python -m routellm.evals.benchmarks.manifest") -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(prog, "Pin the files of a benchmark.", _EXAMPLES, _run, "URL")
    parser.add_argument("url", help="the folder's address, at a commit")
    parser.add_argument("--copy", type=Path, required=True, help="a local copy of that folder")
    parser.add_argument("--files", nargs="+", required=True, help="paths below it; * is allowed")
    parser.add_argument("--licence", required=True, help="the files' licence")
    parser.add_argument("--output", type=Path, required=True, help="where to write the manifest")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    made = make_manifest(arguments.url, arguments.copy, arguments.files, arguments.licence)
    try:
        arguments.output.write_text(format_manifest(made), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{str(arguments.output)!r} can't be written: {error.strerror}.") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run_command(build_parser, argv)


if __name__ == "__main__":
    sys.exit(main())
