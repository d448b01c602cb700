"""What a result was measured with: every result file names its command, versions and machine."""
import datetime
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil
import torch

from ._version import __version__

DISTRIBUTIONS = dict(
    torch=('torch', ), torchvision=('torchvision', ), timm=('timm', ), mmengine=('onedl-mmengine', 'mmengine'),
    mmcv=('onedl-mmcv', 'mmcv', 'mmcv-lite'), mmsegmentation=('onedl-mmsegmentation', 'mmsegmentation'),
    numpy=('numpy', ))
# Since torch 2.9 each operator has a setting of its own, beside the flags there were before, which cannot be read then.
HAS_SETTINGS = hasattr(torch.backends.cudnn, 'conv')
# In an option's value such as `["/data/a","/data/b"]`, or `/data/a` in quotes that the shell has left.
PATH_IN_LIST = re.compile(r"""(?<=['"\[(,=])/[^'",\])]+""")
TUNING_VARIABLES = ('MALLOC_', 'OMP_', 'GOMP_', 'KMP_', 'MKL_', 'ONEDNN_', 'DNNL_', 'PYTORCH_CUDA_ALLOC_CONF')


def versions():
    """Versions of Python, of this package and of each package that decides a result, with the mm stack's build."""
    found = {'python': platform.python_version(), 'inceptionnext_seg': __version__}
    for name, candidates in DISTRIBUTIONS.items():
        for distribution in candidates:
            try:
                version = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            found[name] = version if distribution == name else f'{version} ({distribution})'
            break
    return found


def cpu_name():
    """The processor's model name, where the system reports it."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def device_name(device):
    """The name of a torch device: of the GPU, or of the processor."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()


def relative_command(argv):
    """The command line as a reader can repeat it, without the machine's own paths.

    An absolute path below the working directory becomes relative to it; any other is reduced to its name.
    """
    here = Path.cwd()

    def relative(path):
        path = Path(path)
        return str(path.relative_to(here)) if path.is_relative_to(here) else path.name

    def shorten(argument):
        option, equals, value = argument.rpartition('=')
        if Path(value).is_absolute():
            return f'{option}{equals}{relative(value)}'
        return PATH_IN_LIST.sub(lambda found: relative(found[0]), argument)

    # The console command sets argv[0] to itself and its subcommand.
    if argv and argv[0].startswith('inceptionnext-seg '):
        return ' '.join([argv[0], *map(shorten, argv[1:])])
    command = list(map(shorten, argv))
    # A file of a package was run as a module, and is no script.
    if command and command[0].endswith('.py') and not Path(command[0]).is_absolute() \
            and Path(command[0]).with_name('__init__.py').is_file():
        command[:1] = ['-m', '.'.join(Path(command[0]).with_suffix('').parts).removesuffix('.__main__')]
    return ' '.join(['python', *command])


def commit(folder=Path(__file__).parent):
    """The commit of the repository of ``folder``, '-dirty' where files differ from it; None outside of one.

    Files in docs/results do not count: they are what runs write, so that a second run of one command is of the same
    code. Nor do those that git does not track.
    """
    try:
        # A folder of a repository that ignores it, as an environment in a user's own project, is of no commit.
        ignored = subprocess.run(['git', 'check-ignore', '-q', '.'], cwd=folder, capture_output=True)
        found, changed = (
            subprocess.run(['git', *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
            for arguments in (
                ('describe', '--always', '--exclude=*'),
                ('status', '--porcelain', '--untracked-files=no', '--', ':(top)', ':(top,exclude)docs/results')))
    except (OSError, subprocess.CalledProcessError):
        return None
    return None if ignored.returncode == 0 else found + '-dirty' * bool(changed)


def environment(device=None):
    """What a result file says of its origin: command, commit, date, versions, device, threads. No host name, no path.

    ``device`` is by default the GPU where there is one.
    """
    device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    described = dict(
        command=relative_command(sys.argv), commit=commit(), versions=versions(), device=device.type,
        device_name=device_name(device),
        cpu=cpu_name(), cpu_cores=os.cpu_count(), cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        # Settings that change how allocators and thread pools behave.
        variables={name: value for name, value in sorted(os.environ.items()) if name.startswith(TUNING_VARIABLES)},
        # Above the number of processors, other programs were running too, which widens the intervals.
        load_average=round(psutil.getloadavg()[0], 1),
        platform=platform.system(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'))
    if device.type == 'cuda':
        described.update(
            cuda=torch.version.cuda, cudnn=torch.backends.cudnn.version(),
            convolutions_use_tf32=convolutions_take_tf32())
    return described


def convolutions_take_tf32():
    """Whether convolutions of float32 maps on CUDA may compute in TF32."""
    if HAS_SETTINGS:
        return torch.backends.cudnn.conv.fp32_precision == 'tf32'
    return torch.backends.cudnn.allow_tf32


def products_take_tf32():
    """Whether products of float32 matrices on CUDA may compute in TF32."""
    matmul = torch.backends.cuda.matmul
    return matmul.fp32_precision == 'tf32' if HAS_SETTINGS else matmul.allow_tf32


def synchronize(device, backend=None):
    """Wait until ``device`` has finished its queued work. A CPU queues none.

    Args:
        device (torch.device | str): Any device type of torch.
        backend: What has ``synchronize``; by default torch's own module for the device type, such as ``torch.cuda``.
    """
    device = torch.device(device)
    if device.type != 'cpu':
        (backend or torch.get_device_module(device)).synchronize(device)
