"""From the command line to a runner: what tools/train.py, tools/test.py and tools/predict.py share."""
import atexit
import contextlib
import inspect
import linecache
import logging
import os
import sys
import tempfile
import traceback
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import METRICS

from ..errors import UserError
from ..zoo import PREFIX, drop_scope, find_config, framework_of
from .allocator import keep_freed_memory
from .explaining import FULL, explained
from .joining import ADDRESS, is_elastic, join
from .lifeline import LIFELINE
from .options import OptionsAction, merge_options, set_data_root
from .resuming import find_latest
from .settings import arguments_of, check_names, check_options, check_sections, takes_setting
from .values import check_parts, check_values


def add_config_arguments(parser: ArgumentParser, checkpoint: bool = True,
                         example: str = 'model.test_cfg.mode=whole') -> None:
    """``CONFIG``, ``CHECKPOINT`` where it is asked for, and ``--cfg-options``, with an ``example`` of one."""
    parser.add_argument('config', help='config file, or the name of a config of the package')
    if checkpoint:
        parser.add_argument('checkpoint', help='checkpoint file, or its URL')
    parser.add_argument('--cfg-options', nargs='+', action=OptionsAction, metavar='KEY=VALUE',
                        help=f'override settings of the config, such as {example}')


def add_common_arguments(parser: ArgumentParser) -> None:
    """Arguments of both train and test beside these, spelled as in MMSegmentation's tools."""
    parser.add_argument('--work-dir', help='the directory to save logs and models')
    parser.add_argument('--data-root', metavar='PATH', help='where the data are: data_root of all loaders at once')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # torchrun's predecessors pass it.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(path: str | Path, cfg_options: dict[str, Any] | None = None, data_root: str | None = None,
                adapt: Callable[[Config], None] | None = None) -> Config:
    """The config file, overridden by ``cfg_options``, its data below ``data_root``.

    Args:
        path (str | Path): A file, or the name of a config of the package; see :func:`.zoo.find_config`.
        adapt (Callable | None): Changes the config before the options do.

    Raises:
        UserError: The file, a base of it or an option is missing or wrong, or a setting is one that nothing reads, or
            has a value that it cannot have.
    """
    path = find_config(path)
    if framework := framework_of(path):
        raise UserError(f'config {path} is one of {framework}; expected: one of this package, which `inceptionnext-seg '
                        f"list` lists. Next: give its path to {framework}'s own tools (docs/other_frameworks.md).")
    try:
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise UserError(f'config {path}: a base of it is missing: {error}') from error
    except UserError:
        raise
    # A config is a program of the user's: it can raise anything, and exit.
    except (Exception, SystemExit) as error:
        raise UserError(f'config {path} cannot be read: {where_raised(error, path)}') from error
    drop_scope(cfg._cfg_dict)
    check_parts(cfg)
    check_names(cfg, path)
    if adapt is not None:
        adapt(cfg)
    for key, value in (cfg_options or {}).items():  # in turn: one may be below what another has added
        check_options(cfg, {key: value})
        merge_options(cfg, {key: value})
    if data_root is not None:
        set_data_root(cfg, data_root)
    check_values(cfg)
    check_sections(cfg)
    if (cfg.get('model') or {}).get('data_preprocessor'):
        # A variable that the model has copied, and maybe changed: in the config beside a checkpoint it would be a
        # setting that nothing reads.
        cfg._cfg_dict.pop('data_preprocessor', None)
    return cfg


def where_raised(error: BaseException, path: str | Path) -> str:
    """An error met while a config was read, with the last place in a config file that led to it: file, line, text."""
    if isinstance(error, ImportError) and 'custom modules' in str(error):
        # mmengine puts a page of advice around it, and the list of all paths.
        return f'custom_imports: {error.__context__ or str(error).splitlines()[0]}'
    place = error if isinstance(error, SyntaxError) else None
    file, line = (path, place.lineno) if place else (None, None)
    for frame, number in traceback.walk_tb(error.__traceback__):
        if place and frame.f_code is Config._file2dict.__code__:
            file = frame.f_locals.get('filename', file)  # a base of it
        elif not place and frame.f_code.co_name == '<module>' and frame.f_code.co_filename.endswith('.py'):
            file, line = frame.f_code.co_filename, number
    what = place.msg if place else str(error)
    source = linecache.getline(str(file), line).strip() if file and line else ''
    where = f' ({file}, line {line}{f": {source}" if source else ""})' if line else ''
    return f'{type(error).__name__}{f": {what}" if what else ""}{where}'


def prepare(cfg: Config, args: Namespace) -> None:
    """Fill in what the command line and this machine decide: work_dir and launcher; join the processes of a CPU run.

    On a CPU this process keeps memory that it freed from now on.

    Raises:
        UserError: The processes cannot be joined by this launcher, or nothing can be written to work_dir.
    """
    if 'LOCAL_RANK' not in os.environ:
        os.environ['LOCAL_RANK'] = str(args.local_rank)
    if not torch.cuda.is_available():
        keep_freed_memory()
        announce_idle_gpu()
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or default_work_dir(args.config, getattr(args, 'data', None))
    check_writable(cfg.work_dir, 'work_dir', 'give another --work-dir')
    if cfg.get('model_wrapper_cfg') and 'find_unused_parameters' in cfg:
        # mmengine reads it only where a config names no wrapper.
        cfg.model_wrapper_cfg.setdefault('find_unused_parameters', cfg.find_unused_parameters)
    check_launcher(args.launcher)
    if args.launcher != 'none' and not torch.distributed.is_initialized() and (
            not torch.cuda.is_available() or is_elastic()):
        # Before the runner does, since mmengine selects a CUDA device first, and takes torchrun's store as it is.
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ['LOCAL_RANK']))
        join('nccl' if torch.cuda.is_available() else 'gloo')
        atexit.register(leave_process_group)
        LIFELINE.begin()


# There where the driver of an NVIDIA GPU is loaded.
GPU_FILE = Path('/dev/nvidia0')


def announce_idle_gpu() -> None:
    """Say so where this machine has a GPU that torch cannot use, and nobody has hidden it."""
    hidden = os.environ.get('CUDA_VISIBLE_DEVICES') in ('', '-1')
    if GPU_FILE.exists() and not hidden and os.environ.get('RANK', '0') == '0':
        built = f'for CUDA {torch.version.cuda}' if torch.version.cuda else 'without CUDA'
        print(f'Everything runs on the CPU: this machine has an NVIDIA GPU, but torch {torch.__version__}, built '
              f'{built}, cannot use it. python -c "import torch; torch.zeros(1).cuda()" says why.')


def default_work_dir(config: str | Path, data: str | Path | None = None) -> str:
    """The folder of a run: named after its config and, with ``--data``, after the data set's folder too."""
    name = Path(str(config).removeprefix(PREFIX)).stem
    return str(Path('work_dirs') / (name if data is None else f'{name}_{Path(data).resolve().name}'))


def check_writable(folder: str | Path, what: str, way: str) -> None:
    """Look whether a folder can be written to, or made, before hours are spent on what goes into it; nothing stays."""
    folder = Path(folder)
    try:
        nearest = next(part for part in (folder, *folder.absolute().parents) if part.exists())
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        reason = next((f'{part} is a file' for part in (folder, *folder.parents) if part.is_file()), error.strerror)
        raise UserError(f'{what} {folder} cannot be written to: {reason}. Expected: a folder, or a place for one. '
                        f'Next: {way}.') from error


def leave_process_group() -> None:
    """A process that exits while gloo's threads still run can be aborted, exit code -6, after its work was done."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def check_launcher(launcher: str) -> None:
    """Refuse a process that was not started as ``--launcher`` says, or that this machine cannot run.

    Raises:
        UserError: It is one of several that torchrun started and ``--launcher`` does not say so, it is not one of
            torchrun's and ``--launcher`` says so, this machine has fewer GPUs than processes, or none.
    """
    processes = os.environ.get('WORLD_SIZE', '1')
    if launcher == 'none':
        if 'RANK' in os.environ and processes != '1' and not torch.distributed.is_initialized():
            raise UserError(f'this is one of {processes} processes, by the environment variables RANK and WORLD_SIZE '
                            'that torchrun sets, and --launcher is none: each would do all of the work alone, and '
                            "write over the others' files. Next: --launcher pytorch; or, if this process is alone, "
                            'unset RANK and WORLD_SIZE.')
        return
    here, gpus = os.environ.get('LOCAL_WORLD_SIZE', ''), torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus and here.isdecimal() and int(here) > gpus:
        raise UserError(f'{here} processes were started on this machine, which has {gpus} GPU(s) that torch can use; '
                        f'expected: no more than {gpus}. Next: --nproc_per_node={gpus}, or another '
                        'CUDA_VISIBLE_DEVICES.')
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise UserError('--launcher pytorch: this process was not started by torchrun. '
                        'Next: torchrun --nproc_per_node=2 tools/train.py CONFIG --launcher pytorch')
    if launcher == 'pytorch' and not torch.distributed.is_initialized():
        check_address()
    if launcher != 'pytorch' and not torch.cuda.is_available():
        raise UserError(f'--launcher {launcher} needs a GPU in each process, and no GPU is found here. '
                        'Next: torchrun and --launcher pytorch, which run on CPUs too.')


def check_address() -> None:
    """Whether the environment says which process this is, of how many, and where they meet.

    Raises:
        UserError: It does not, as where processes are started by hand and a variable is forgotten.
    """
    found = {name: os.environ.get(name, '') for name in ADDRESS}
    wrong = [f'{name}={value}' if value else f'{name} is not set' for name, value in found.items()
             if not value or (name != 'MASTER_ADDR' and not (value.isdecimal() and value.isascii()))]
    if not wrong and int(found['RANK']) >= int(found['WORLD_SIZE']):
        wrong = [f'RANK={found["RANK"]} with WORLD_SIZE={found["WORLD_SIZE"]}']
    if wrong:
        raise UserError(f'--launcher pytorch: {", ".join(wrong)} in the environment. Expected: {", ".join(ADDRESS)}, '
                        'the ranks from 0, the address and a free port of process 0. Next: torchrun, which sets them; '
                        'or set them for each process.')


# cuBLAS adds up in a fixed order only with workspaces of a fixed size; these torch accepts.
CUBLAS_WORKSPACES = (':4096:8', ':16:8')


def be_deterministic(cfg: Config) -> None:
    """Set the run to deterministic algorithms, before CUDA starts.

    Raises:
        UserError: The environment has a setting of cuBLAS that does not allow it.
    """
    found = os.environ.setdefault('CUBLAS_WORKSPACE_CONFIG', CUBLAS_WORKSPACES[0])
    if found not in CUBLAS_WORKSPACES:
        raise UserError(f'--deterministic: the environment variable CUBLAS_WORKSPACE_CONFIG is {found!r}, with which '
                        f'matrix products on CUDA are not deterministic. Expected: {" or ".join(CUBLAS_WORKSPACES)}. '
                        'Next: unset it.')
    cfg.randomness = dict(cfg.get('randomness') or {}, deterministic=True)


def enable_amp(cfg: Config) -> None:
    """bf16 on a CPU and where the GPU has it, otherwise fp16 with loss scaling.

    A GPU that emulates bf16, as those of before compute capability 8.0, does not have it.
    """
    kind = cfg.optim_wrapper.setdefault('type', 'OptimWrapper')     # mmengine's default
    if kind in ('AmpOptimWrapper', 'BFloat16OptimWrapper'):
        return
    if kind != 'OptimWrapper':
        raise UserError(f'--amp works where optim_wrapper.type is OptimWrapper; this config has {kind}.')
    if torch.cuda.is_available() and not has_bf16():
        cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale = 'AmpOptimWrapper', 'dynamic'
    else:
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'


def has_bf16() -> bool:
    """Whether the current GPU multiplies bfloat16 itself."""
    return torch.cuda.is_bf16_supported(including_emulation=False)


def enable_compile(cfg: Config) -> None:
    """torch.compile, as ``compile`` in a config: True, or a dict of its settings, which stays."""
    cfg.compile = cfg.get('compile') or True


def enable_cuda_graph(cfg: Config) -> None:
    """The losses as a CUDA graph, by ``CudaGraphHook`` among ``custom_hooks``."""
    hooks = list(cfg.get('custom_hooks') or ())
    if not any(hook.get('type') == 'CudaGraphHook' for hook in hooks):
        cfg.custom_hooks = [*hooks, dict(type='CudaGraphHook')]


def resume_latest(cfg: Config) -> None:
    """Set the run to go on from the last checkpoint of ``work_dir``, read first as the untrusted file that it is."""
    latest = find_latest(cfg.work_dir)
    cfg.resume = latest is not None
    if latest is None:
        print(f'--resume: no checkpoint in {cfg.work_dir} yet, so training begins at the start.')
        return
    path, checkpoint = latest
    cfg.load_from = str(path)
    trained = checkpoint['meta'].get('seed')
    check_seed(cfg, path, trained if isinstance(trained, int) else None)
    # They would be overwritten, and may need a network that is not there any more.
    cfg.model.backbone.init_cfg = None


def check_seed(cfg: Config, path: Path, trained: int | None) -> None:
    """A run goes on with the seed that it began with.

    Raises:
        UserError: Another is asked for.
    """
    randomness = cfg.setdefault('randomness', ConfigDict())
    asked = randomness.get('seed')
    if trained is not None and asked is not None and asked != trained:
        raise UserError(f'--resume: the seed is {asked}, but {path} was trained with {trained}, and a run has one. '
                        f'Next: --seed {trained}, or a new run: --work-dir with another folder.')
    if trained is not None:
        randomness['seed'] = trained


def announce_scratch(cfg: Config, path: str | Path) -> None:
    """Say so where an option took away the pretrained weights that the config file names, and how to have them."""
    backbone, named = cfg.model.backbone, Config.fromfile(find_config(path)).model.backbone.get('init_cfg')
    named = named.get('checkpoint') if isinstance(named, dict) else None    # others draw weights
    if not named or backbone.get('init_cfg') or cfg.get('resume') or cfg.get('load_from'):
        return
    scaled = takes_setting(backbone, 'layer_scale_init_value') and 'layer_scale_init_value' not in backbone
    scales = 'layer scales of 1e-6 leave the blocks all but idle (model.backbone.layer_scale_init_value=1.0), and ' \
        if scaled else ''
    print(f'Training from scratch: model.backbone.init_cfg=None leaves out the weights that {path} names, {named}. The '
          f'rest is a recipe for fine-tuning: {scales}the rate is low. To train from the weights, leave the option '
          'out; to train from a file that you have: --cfg-options model.backbone.init_cfg.checkpoint=PATH (.pth or '
          '.safetensors).')


def build_runner(cfg: Config) -> Runner:
    """mmengine's runner of a config, in the config's scope."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    runner = Runner.from_cfg(cfg)
    for handler in runner.logger.handlers:
        if isinstance(handler, logging.FileHandler):
            stop_on_full_disk(handler)
    return runner


def stop_on_full_disk(handler: logging.FileHandler) -> None:
    """Let a log that cannot be written end the run, as a checkpoint does.

    A handler of ``logging`` prints a traceback for each line that it cannot write, and goes on.
    """
    report = handler.handleError

    def handle(record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError) and error.errno in FULL:
            raise error
        report(record)

    handler.handleError = handle


@contextlib.contextmanager
def explain_errors(trains: bool = True) -> Iterator[None]:
    """What a run is in: :func:`~.explaining.explained`, and in a run of several processes an error ends the others too,
    with its message.

    Raises:
        UserError: As in :func:`~.explaining.explained`.
    """
    with explained(trains):
        with LIFELINE.tied():
            yield
        LIFELINE.end()


def without_training(cfg: Config) -> None:
    """Leave out hooks that a test has no use for: early stopping, which has mmengine build the training loop and read
    its data, and averaging, whose result the checkpoint has."""
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or ()
                        if hook.get('type') not in ('EarlyStoppingHook', 'EMAHook')]


def for_tta(cfg: Config) -> Config:
    """The config of a multi-scale and flip test: mmseg's TTA model around the model, its pipeline around the images."""
    if 'tta_pipeline' not in cfg or 'tta_model' not in cfg:
        raise UserError('--tta needs tta_pipeline and tta_model in the config, as in configs/_base_/ade20k.py.')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.tta_model.module = cfg.model
    cfg.model = ConfigDict(cfg.tta_model)
    return cfg


def show_predictions(cfg: Config, args: Namespace) -> None:
    """Let mmseg's visualization hook draw labels and predictions, into ``--show-dir``, a window, or both.

    Raises:
        UserError: The config has no such hook, or no visualizer.
    """
    if not (cfg.get('default_hooks') or {}).get('visualization') or not cfg.get('visualizer'):
        raise UserError('--show and --show-dir need default_hooks.visualization and a visualizer, and the config does '
                        'not have both. Expected: as in configs/_base_/runtime.py. Next: add them to the config.')
    cfg.default_hooks.visualization.update(draw=True, show=args.show, wait_time=args.wait_time)
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def write_predictions(cfg: Config, folder: str) -> None:
    """Let the metrics of a test that can do so, such as IoUMetric, write the predictions into ``--out``.

    Raises:
        UserError: None can.
    """
    metrics = cfg.get('test_evaluator') or []
    metrics = metrics['metrics'] if isinstance(metrics, dict) and 'metrics' in metrics else metrics
    metrics = list(metrics) if isinstance(metrics, list | tuple) else [metrics]
    classes = [METRICS.get(metric['type']) if isinstance(metric['type'], str) else metric['type'] for metric in metrics]
    writing = [metric for metric, cls in zip(metrics, classes, strict=True)
               if inspect.isclass(cls) and 'output_dir' in arguments_of(cls)]
    if not writing:
        found = ', '.join(str(metric['type']) for metric in metrics) or 'it has none'
        raise UserError(f'--out {folder}: no metric of test_evaluator writes predictions ({found}). Expected: one that '
                        'takes an output_dir. Next: IoUMetric beside them, or tools/predict.py.')
    for metric in writing:
        metric['output_dir'] = folder


def unwrap(model: nn.Module) -> nn.Module:
    """The segmentor inside DistributedDataParallel and mmseg's TTA model."""
    while hasattr(model, 'module'):
        model = model.module
    return model
