"""What a result was measured with, and writing it: every result file names its command, versions and machine."""
import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path

import torch

DISTRIBUTIONS = dict(
    torch=('torch', ), torchvision=('torchvision', ), timm=('timm', ), mmengine=('onedl-mmengine', 'mmengine'),
    mmcv=('onedl-mmcv', 'mmcv', 'mmcv-lite'), mmsegmentation=('onedl-mmsegmentation', 'mmsegmentation'),
    numpy=('numpy', ))


def versions():
    """Versions of Python, of this package and of each package that decides a result, with the mm stack's build."""
    from . import __version__
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
    """The processor's model name, as far as the system tells."""
    try:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')), platform.machine())


def device_name(device):
    """The name of a torch device: of the GPU, or of the processor."""
    device = torch.device(device)
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else cpu_name()


def command_line():
    """The command, without the folders in front of the interpreter and the script."""
    script, *arguments = sys.argv
    script = Path(script)
    if script.is_absolute():
        script = Path(os.path.relpath(script)) if script.is_relative_to(Path.cwd()) else Path(script.name)
    return shlex.join(['python', str(script), *arguments])


def environment(device=None):
    """Command, versions, device, threads and date, to be kept beside every figure. ``device`` is the default one."""
    device = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    return dict(
        command=command_line(), versions=versions(), device=device.type, device_name=device_name(device),
        cpu=cpu_name(), cpu_cores=os.cpu_count(), threads=torch.get_num_threads(), platform=platform.system(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'))


def synchronize(device):
    """Wait for the device: its work is asynchronous, so a clock read before it has ended measures nothing."""
    device = torch.device(device)
    if device.type != 'cpu':
        torch.get_device_module(device).synchronize(device)


def write_json(path, content):
    """Write ``content`` to ``path``, whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
    temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + '\n')
    temporary.replace(path)
