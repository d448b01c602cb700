"""How a machine is named: in a line, and as the folder of docs/results that its results go into."""
import os
import re
from pathlib import Path

from inceptionnext_seg.provenance import cpu_name

# The folder of docs/results whose figures the documents show where they show those of one machine.
PUBLISHED = 'xeon-amx-2cores'


def cpu_flags():
    try:
        return set(Path('/proc/cpuinfo').read_text().split())
    except OSError:     # not Linux
        return set()


def machine_line(content, *conditions):
    """Of a result file: the processor with what decides its speed, ``conditions`` such as threads, torch's version."""
    e = content['environment']
    device = f'{e.get("device_name") or e["cpu"]} ({", ".join(e["features"]) or e["cpu_capability"]})'
    return ', '.join([device, *conditions, f'torch {e["versions"]["torch"]}'])


def folder_name(cpu=None, flags=None, cores=None):
    """Such as ``xeon-amx-2cores``: the processor, what it multiplies bfloat16 with, and its cores.

    Args:
        cpu (str): Its model name.
        flags (set[str]): As Linux names what it can do.
        cores (int): Of the machine.
    """
    flags = cpu_flags() if flags is None else flags
    name = re.sub(r'\((r|tm)\)|@.*|\b(intel|amd|cpu|processor|\d+-core|with .*)\b', ' ', (cpu or cpu_name()).lower())
    kind = next((text for flag, text in (('amx_bf16', 'amx'), ('avx512_bf16', 'avx512bf16')) if flag in flags), '')
    words = re.findall(r'[a-z0-9]+', name) + [kind, f'{cores or os.cpu_count()}cores']
    return '-'.join(filter(None, words))
