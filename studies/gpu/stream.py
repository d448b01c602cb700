"""What a residual stream in half precision loses: python -m studies.gpu.stream

Stock operators under autocast sum in float32, since layer scale is float32. Here a backbone runs under autocast with
the stream as it is, and with the stream rounded to half precision after each block, against float64. On a CPU, whose
autocast has both half precisions.
"""

import torch

from inceptionnext_seg.files import markdown_table
from inceptionnext_seg.models.metanext import MetaNeXtBlock
from inceptionnext_seg.provenance import environment

from .. import one_result
from ..throughput.candidates import NONE, build, candidate_config
from ..throughput.setting import Setting
from .cells import INCEPTIONNEXT

SCALES = {'new network': 1e-6, 'early in training': 1e-3, 'as pretrained': 0.2}


def backbone(gamma):
    """Plain, of seed 0, with this layer scale in every block."""
    model = build(candidate_config(f'{INCEPTIONNEXT}::{NONE}'), Setting(part='backbone'), 'nhwc')
    for module in model.modules():
        if isinstance(module, MetaNeXtBlock):
            torch.nn.init.constant_(module.gamma, gamma)
            module.drop_path = torch.nn.Identity()
    return model


def run(gamma, dtype, rounds, images):
    """Share of what all blocks of the last stage add that is lost, and the relative error of that stage's output."""
    model, maps = backbone(gamma), {}
    exact = backbone(gamma).double()
    blocks = [m for m in model.stages[-1].modules() if isinstance(m, MetaNeXtBlock)]
    handles = []
    for module in model.modules():
        if rounds and isinstance(module, MetaNeXtBlock):
            handles.append(module.register_forward_hook(lambda m, args, out: out.to(dtype).to(out.dtype)))
    for network, key in ((model, 'found'), (exact, 'exact')):
        last = [m for m in network.stages[-1].modules() if isinstance(m, MetaNeXtBlock)]
        last[0].register_forward_pre_hook(lambda m, args, key=key: maps.__setitem__(f'{key} in', args[0].double()))
        last[-1].register_forward_hook(lambda m, args, out, key=key: maps.__setitem__(f'{key} out', out.double()))
    with torch.no_grad():
        exact(images.double())
        with torch.autocast('cpu', dtype=dtype):
            model(images)
    added, wanted = (maps[f'{key} out'] - maps[f'{key} in'] for key in ('found', 'exact'))
    error = (maps['found out'] - maps['exact out']).norm() / maps['exact out'].norm()
    return dict(blocks=len(blocks), kept=min((added * wanted).sum().item() / wanted.square().sum().item(), 9.99),
                error_of_added=((added - wanted).norm() / wanted.norm()).item(), error=error.item())


def measure(side=128):
    images, rows = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)), []
    for dtype in (torch.bfloat16, torch.float16):
        for name, gamma in SCALES.items():
            for rounds in (False, True):
                rows.append(dict(dtype=str(dtype).removeprefix('torch.'), scale=name, gamma=gamma,
                                 stream='half precision' if rounds else 'float32, as stock',
                                 **run(gamma, dtype, rounds, images)))
    return dict(environment=environment('cpu'), side=side, rows=rows)


def table(result):
    rows = [[r['dtype'], f'{r["scale"]}, {r["gamma"]:g}', r['stream'], f'{r["kept"]:.3f}', f'{r["error_of_added"]:.2g}',
             f'{r["error"]:.2g}'] for r in result['rows']]
    return markdown_table(['autocast', 'layer scale', 'stream', 'kept', 'error of what is added',
                           'error of the output'], rows)


def report(result):
    e = result['environment']
    return '\n'.join([
        '# The residual stream under autocast', '', f'`{e["command"]}`, commit {e["commit"]}, on a CPU. Plain '
        f'InceptionNeXt-T of seed 0 in training, 2 images of {result["side"]}×{result["side"]}, against float64. '
        '"Kept" is how much of what the last stage\'s blocks add arrives, as the projection on what they add in '
        'float64; 1 is all. Errors are relative.', '', table(result), ''])


if __name__ == '__main__':
    one_result.run(__doc__, 'docs/results/gpu_stream.json', measure, report)
