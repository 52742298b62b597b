"""The two regions of a run, laid out for its graph: made by whoever starts it, attached by each worker."""

from __future__ import annotations

from typing import Any

from megaphone._core import ffi, lib
from megaphone.dataflow.about import about_run
from megaphone.dataflow.graph import Graph
from megaphone.errors import InternalError
from megaphone.shm.limits import Limits, huge_pages_wanted
from megaphone.shm.region import Region


class RunMemory:
    """Control region and data region, mapped.

    Attributes:
        control: cffi pointer to the control region.
        data: cffi pointer to the data region, read-write.
        view: cffi pointer to the data region, read-only.
        data_fd: descriptor of the data region, for growing it.
        wake_fd: descriptor by which a worker asks the parent to grow memory ahead; -1 where there is no parent.
    """

    def __init__(self, control_region: Region, data_region: Region, wake_fd: int = -1) -> None:
        self.control_region = control_region
        self.data_region = data_region
        self.wake_fd = wake_fd
        self.control: Any = control_region.pointer
        self.data: Any = data_region.pointer
        self.view: Any = data_region.view_pointer
        self.data_fd = data_region.fd

    @classmethod
    def create(cls, graph: Graph, limits: Limits, wake_fd: int = -1) -> RunMemory:
        """Make both regions for a finished graph.

        Raises:
            SharedMemoryError: /dev/shm or the machine has less than asked for.
        """
        c = ffi.new("mp_limits *")
        c.slots = graph.workers
        c.ring_cells = limits.ring_cells
        c.data_bytes = limits.memory_bytes
        c.chunk_bytes = limits.chunk_bytes
        c.slab_bytes = limits.slab_bytes
        c.locations = graph.location_count
        c.keyed = len(graph.keyed)
        c.paths = len(graph.path_from)
        c.huge_pages = huge_pages_wanted()
        for index, bin_shift in enumerate(graph.keyed):
            c.bin_shift[index] = bin_shift
        data_region = Region.create(limits.memory_bytes, "data")
        try:
            about = about_run(graph, data_region.fd)
            c.about_bytes = len(about)
            control_region = Region.create(int(lib.mp_control_bytes(c)), "control")
        except BaseException:
            data_region.close()
            raise
        memory = cls(control_region, data_region, wake_fd)
        rc = lib.mp_control_init(memory.control, c)
        if rc == 0:
            rc = lib.mp_control_set_paths(
                memory.control,
                ffi.cast("uint32_t *", graph.path_index.ctypes.data),
                ffi.cast("uint32_t *", graph.path_from.ctypes.data),
                ffi.cast("uint64_t *", graph.path_step.ctypes.data),
            )
        if rc == 0:
            rc = lib.mp_control_set_about(memory.control, about, len(about))
        if rc:
            memory.close()
            message = f"the control region refuses its layout ({rc}): {limits}"
            raise InternalError(message)
        return memory

    @classmethod
    def attach(cls, control_fd: int, control_bytes: int, data_fd: int, data_bytes: int, wake_fd: int) -> RunMemory:
        """Map both regions in a worker; raises InternalError when they are not what the parent said."""
        memory = cls(
            Region.attach(control_fd, control_bytes, "control"), Region.attach(data_fd, data_bytes, "data"), wake_fd
        )
        if lib.mp_control_check(memory.control):
            message = "the control region was made by another version of megaphone: run make build"
            raise InternalError(message)
        return memory

    def hold(self) -> object:
        """Return what keeps the mappings alive while views exist."""
        return self.control_region.hold(), self.data_region.hold()

    def close(self) -> None:
        """Let go of both regions; what views them keeps its mapping."""
        self.control_region.close()
        self.data_region.close()
