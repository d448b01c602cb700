"""Under which conditions a GPU runs: driver, clocks, power limit, temperature."""
import re
import subprocess

import torch

QUERY = dict(
    driver='driver_version', power_limit_W='power.limit', power_W='power.draw', clock_MHz='clocks.sm',
    largest_clock_MHz='clocks.max.sm', memory_clock_MHz='clocks.mem', largest_memory_clock_MHz='clocks.max.mem',
    temperature_C='temperature.gpu', throttled='clocks_throttle_reasons.active', persistence='persistence_mode',
    memory_used_MiB='memory.used', memory_MiB='memory.total', mig='mig.mode.current')


def slug(name):
    """The name of a device as that of a folder."""
    return re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')


def conditions(device, run=subprocess.run):
    """What nvidia-smi says of a device, by the names of :data:`QUERY`; empty where it says nothing."""
    device = torch.device(device)
    if device.type != 'cuda':
        return {}
    identity = str(torch.cuda.get_device_properties(device).uuid)
    try:
        said = run(['nvidia-smi', f'--query-gpu={",".join(QUERY.values())}', '--format=csv,noheader,nounits',
                    '-i', identity if identity.startswith('GPU-') else f'GPU-{identity}'],
                   capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return {}
    values = [value.strip() for value in said.strip().splitlines()[0].split(',')] if said.strip() else []
    return {name: number(value) for name, value in zip(QUERY, values, strict=False) if not value.startswith('[')}


def number(text):
    try:
        return float(text)
    except ValueError:
        return text
