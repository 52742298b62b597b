"""The C core as cffi compiles it: its functions are declared in the headers, which mypy cannot read."""

from typing import Any

ffi: Any
lib: Any
