"""Compile Triton kernels for a GPU that is not there, and read from the result what that GPU would have to do.

The launches are those of the package's own launch code, recorded with tensors on the meta device::

    with recording() as launches:
        forward(torch.empty(16, 150, 128, 128, dtype=torch.float16, device='meta'), ...)
    report = compile_ahead(launches[0], capability=80)

so that the signature, the constants and what Triton specializes on (arguments that are 1, sizes and addresses divisible
by 16) are the real ones. It needs Triton, and neither a GPU nor a driver.
"""
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from triton.backends import nvidia
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

TOOLS = Path(nvidia.__file__).parent / 'bin'


class Report(NamedTuple):
    """What a kernel is on a GPU.

    Attributes:
        name (str): Of the kernel.
        capability (int): Of the GPU: 80 is sm_80.
        registers (int): A thread.
        spills (int): Bytes of registers that a thread keeps in memory, stored and loaded together.
        shared (int): Bytes of shared memory of a program.
        warps (int): Of a program.
        loads (Counter[int]), stores (Counter[int]): Instructions on global memory in the code, by the bits that a
            thread moves with one. They are counted as written: one in a loop counts once.
        barriers (int): Instructions that wait for the whole program.
        ptx (str): The code.
    """
    name: str
    capability: int
    registers: int
    spills: int
    shared: int
    warps: int
    loads: Counter
    stores: Counter
    barriers: int
    ptx: str

    def __str__(self):
        def widths(counts):
            return ', '.join(f'{count} × {bits}' for bits, count in sorted(counts.items())) or 'none'
        return (f'{self.name} sm_{self.capability}: {self.registers} registers, {self.spills} bytes spilled, '
                f'{self.shared} bytes shared, {self.warps} warps, {self.barriers} barriers; loads {widths(self.loads)} '
                f'bit; stores {widths(self.stores)} bit')


class NamedGPU:
    """A driver of Triton's that names a GPU and has none: kernels are compiled for it and not launched."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        return GPUTarget('cuda', self.capability, 32)

    def get_current_device(self):
        # Triton keeps what it compiled by the device's number: one that no GPU has.
        return f'sm_{self.capability}'

    def get_current_stream(self, device=None):
        return 0

    def get_device_capability(self, device=None):
        return divmod(self.capability, 10)

    def set_current_device(self, device):
        pass


def compile_ahead(launch, capability):
    """:class:`Report` of a recorded :class:`inceptionnext_seg.ops._triton.Launch`, compiled for sm_``capability``.

    Raises:
        Exception: Whatever Triton or ptxas raises where it does not compile.
    """
    try:
        before = driver.active
    except Exception:   # there is none, which Triton says in several ways
        before = None
    driver.set_active(NamedGPU(capability))
    try:
        compiled = launch.kernel.run(*launch.args, grid=launch.grid, warmup=True, **launch.constants)
    finally:
        driver.set_active(before)
    ptx = compiled.asm['ptx']
    registers, spills = assemble(ptx)
    return Report(launch.kernel.__name__, capability, registers, spills, compiled.metadata.shared,
                  compiled.metadata.num_warps, accesses(ptx, 'ld'), accesses(ptx, 'st'),
                  len(re.findall(r'\bbar(?:rier)?\.', ptx)), ptx)


def assemble(ptx):
    """Registers and spilled bytes of a kernel, as ptxas tells them."""
    architecture = re.search(r'^\.target (\w+)', ptx, re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / 'kernel.ptx'
        source.write_text(ptx)
        told = subprocess.run([str(TOOLS / 'ptxas'), '-v', f'-arch={architecture}', str(source), '-o',
                               str(source.with_suffix('.cubin'))], capture_output=True, text=True, check=True).stderr
    spilled = re.search(r'(\d+) bytes spill stores, (\d+) bytes spill loads', told)
    return int(re.search(r'Used (\d+) registers', told)[1]), sum(map(int, spilled.groups()))


def accesses(ptx, instruction):
    """Instructions ``ld.global`` or ``st.global`` by their width in bits."""
    found = re.findall(rf'\b{instruction}\.global(?:\.\w+|::\w+)*?(?:\.v([248]))?\.[bsuf](\d+)\b', ptx)
    return Counter(int(count or 1) * int(bits) for count, bits in found)
