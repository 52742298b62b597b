"""What pyproject.toml cannot say yet: that cffi makes the extension, for every Python from 3.11, on all cores."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext


class BuildOnAllCores(build_ext):
    """Compiles the sources of the extension at the same time; setuptools would take them one after another."""

    def build_extension(self, ext: Extension) -> None:
        """Build one extension, with a thread per core waiting for its compiler."""
        compile_in_turn = self.compiler.compile

        def compile_together(sources: list[str], **options: Any) -> list[str]:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                jobs = [pool.submit(compile_in_turn, [source], **options) for source in sources]
                return [objects for job in jobs for objects in job.result()]

        self.compiler.compile = compile_together
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_in_turn


setup(
    cffi_modules=["megaphone/_build.py:ffibuilder"],
    cmdclass={"build_ext": BuildOnAllCores},
    # Without this the file is abi3 and the wheel is still tagged for one version of Python.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
