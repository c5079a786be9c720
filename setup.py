"""The compiled kernel; all else about the package is in pyproject.toml."""

import sys
from glob import glob

from setuptools import Extension, setup

FOLDER = "routellm/embeddings/native"
# No fused multiply-add: what is computed equals what Python computes to the bit.
FLAGS = [] if sys.platform == "win32" else ["-O3", "-std=c99", "-ffp-contract=off", "-fvisibility=hidden"]

setup(
    ext_modules=[
        Extension(
            "routellm.embeddings._scan",
            sources=sorted(glob(f"{FOLDER}/*.c")),
            depends=sorted(glob(f"{FOLDER}/*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=FLAGS,
            py_limited_api=True,  # one file for CPython 3.11 and later
            optional=True,  # without a C compiler the same is done in Python, slower
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
