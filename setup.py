"""Compiles the scanner where that is possible. Everything else stands in pyproject.toml.

WS_SIDECAR_COMPILE in the environment says how much it matters:

auto      compile where Cython and a C compiler are there, else warn and build a wheel of Python
          alone; the default
require   compile, or fail
off       a wheel of Python alone
"""

import os
import sys
import tempfile
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

VARIABLE = "WS_SIDECAR_COMPILE"
# The scanner needs the buckets in the same form, and the tap both: all are compiled or none.
MODULES = ("sidecar.wire.buckets", "sidecar.wire.scanner", "sidecar.wire.tap")
# Compilers for some processors fuse a product and a sum, and so would round unlike Python.
FLAGS = [] if sys.platform == "win32" else ["-ffp-contract=off"]
PROBE = "#include <Python.h>\nPyMODINIT_FUNC PyInit_probe(void) { return NULL; }\n"


class Compiled(Extension):
    """A module of the package, compiled from its .py with the types in its .pxd."""

    cython_c_in_temp = True
    cython_directives = {"annotation_typing": False, "language_level": 3}  # noqa: RUF012


class BuildAside(build_ext):
    """Never among the sources: there, a module compiled once would hide its .py from then on."""

    def finalize_options(self) -> None:
        """Leave nothing to build for `build_ext --inplace` and for an editable install."""
        super().finalize_options()
        if self.inplace or self.editable_mode:
            self.extensions = []


def extensions(wanted: str) -> list[Extension]:
    """What to compile. Raises SystemExit for a value not known, or where it must and cannot."""
    if wanted not in ("auto", "require", "off"):
        raise SystemExit(f"error: {VARIABLE} is {wanted!r}; write auto, require or off")
    if wanted == "off":
        return []
    missing = what_is_missing()
    if not missing:
        return [
            Compiled(module, [f"{module.replace('.', '/')}.py"], extra_compile_args=FLAGS)
            for module in MODULES
        ]
    if wanted == "require":
        raise SystemExit(f"error: the scanner cannot be compiled: {missing}")
    print(f"warning: the scanner is not compiled and will be slower: {missing}", file=sys.stderr)
    return []


def what_is_missing() -> str:
    """Why nothing can be compiled here, "" where it can."""
    try:
        import Cython  # noqa: F401
    except ImportError:
        return "Cython is not installed"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "probe.c")
        source.write_text(PROBE)
        probe = build_ext(Distribution({"ext_modules": [Extension("probe", [str(source)])]}))
        probe.build_lib = probe.build_temp = folder
        try:
            probe.ensure_finalized()
            probe.run()
        except (BaseError, CCompilerError):
            return "there is no C compiler that works with Python's headers"
    return ""


setup(
    ext_modules=extensions(os.environ.get(VARIABLE, "auto")),
    cmdclass={"build_ext": BuildAside},
)
