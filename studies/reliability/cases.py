"""What tools/reliability.py does, by name, and the table of its results."""
import os
import signal
import subprocess
import sys
import time

from mmseg.utils import register_all_modules
from tqdm import tqdm

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.files import markdown_table

from .killing import INTERVAL, differing, finish, killed, signalled, write_config
from .processes import TOOL, free_port


class Case:
    """A folder for runs, and the references that they are compared with, each trained once.

    Args:
        config (Path): Of the runs.
    """

    def __init__(self, config, folder, kills, seed):
        self.config, self.folder, self.kills, self.seed = config, folder, kills, seed
        self.references = {}

    def arguments(self, name, deterministic=False, seed=0, **options):
        return [self.config, '--seed', seed, *(['--deterministic'] if deterministic else []), '--cfg-options',
                f'visualizer.name={name}', *(f'{key}={value}' for key, value in options.items())]

    def reference(self, processes=1, deterministic=False):
        """The work_dir of a run that was left alone, and its pace."""
        key = processes, deterministic
        if key not in self.references:
            name = f'whole_{processes}_{deterministic}'
            folder = self.fresh(name)
            pace = finish([*self.arguments(name, deterministic), '--work-dir', folder], folder / 'log', processes)
            self.references[key] = folder, pace
        return self.references[key]

    def fresh(self, name):
        folder = self.folder / name
        folder.mkdir(parents=True)
        return folder


def kill_case(case, processes, deterministic):
    reference, pace = case.reference(processes, deterministic)
    name = f'killed_{processes}_{deterministic}'
    folder = case.fresh(name)
    found = killed(case.arguments(name, deterministic), folder, processes, case.kills, pace, case.seed)
    return compare(found, folder / 'run', reference)


def signal_case(case, number):
    folder = case.fresh(number.name)
    found = signalled(case.arguments(number.name), folder, number)
    found = compare(found, folder / 'run', case.reference()[0])
    found['as_expected'] &= found['status'] == 128 + number and found['lines'] == 1
    return found


def workers_case(case):
    """0, 1 and 4 workers; another seed."""
    reference, found = case.reference()[0], {}
    for workers in (0, 1, 4):
        name = f'workers_{workers}'
        options = {'train_dataloader.num_workers': workers, 'train_dataloader.persistent_workers': workers > 0}
        folder = case.fresh(name)
        finish([*case.arguments(name, **options), '--work-dir', folder], folder / 'log')
        found[name] = differing(folder, reference)['differing']
    folder = case.fresh('another_seed')
    finish([*case.arguments('another_seed', seed=1), '--work-dir', folder], folder / 'log')
    other = differing(folder, reference)
    found['another_seed'] = other['differing']
    return dict(found, tensors=other['tensors'], differing=sum(found[f'workers_{workers}'] for workers in (0, 1, 4)),
                as_expected=not any(found[f'workers_{workers}'] for workers in (0, 1, 4)) and other['differing'] > 0)


def torchrun_case(case):
    """Two agents with a rendezvous, as on two machines; a training process of the second is killed amid training."""
    reference, _ = case.reference(processes=2)
    folder = case.fresh('torchrun')
    port = free_port()
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='')
    agents = []
    for i in range(2):
        with (folder / f'agent{i}.log').open('w') as log:
            agents.append(subprocess.Popen(
                [sys.executable, '-m', 'torch.distributed.run', '--nnodes=2', '--nproc_per_node=1', '--max-restarts=3',
                 '--rdzv-backend=c10d', f'--rdzv-endpoint=127.0.0.1:{port}', '--rdzv-id=reliability', str(TOOL),
                 *map(str, case.arguments('torchrun')), '--work-dir', str(folder / 'run'), '--launcher', 'pytorch'],
                stdout=log, stderr=log, env=environment))
    until = time.monotonic() + 300
    while not (folder / f'run/iter_{4 * INTERVAL}.pth').is_file() and time.monotonic() < until:
        time.sleep(0.02)
    children = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(agents[1].pid)], capture_output=True, text=True,
                              check=True).stdout.split()
    os.kill(int(children[0]), signal.SIGKILL)
    statuses = [agent.wait(timeout=600) for agent in agents]
    if set(statuses) != {0}:
        raise UserError(f'torchrun ended with {statuses}: {(folder / "agent0.log").read_text()[-3000:]}')
    starts = len({path.parent.name for path in (folder / 'run').glob('*/*.log')})
    found = compare(dict(starts=starts), folder / 'run', reference)
    found['as_expected'] &= starts == 2
    return found


def compare(found, work_dir, reference):
    found = dict(found, **differing(work_dir, reference))
    return dict(found, as_expected=found['differing'] == 0)


CASES = {
    **{f'kill-{processes}{"-deterministic" if deterministic else ""}':
       lambda case, processes=processes, deterministic=deterministic: kill_case(case, processes, deterministic)
       for processes in (1, 2) for deterministic in (False, True)},
    'sigterm': lambda case: signal_case(case, signal.SIGTERM), 'ctrl-c': lambda case: signal_case(case, signal.SIGINT),
    'workers': workers_case, 'torchrun': torchrun_case}


def run_cases(names, config, folder, kills, seed):
    """
    Returns:
        dict: Of each case what was found, ``as_expected`` among it, and how long it took.
    """
    register_all_modules(init_default_scope=False)  # before forking: once
    case, results = Case(write_config(folder, config), folder, kills, seed), {}
    for name in tqdm(names, unit='case'):
        started = time.monotonic()
        results[name] = CASES[name](case)
        results[name]['seconds'] = round(time.monotonic() - started)
    return results


def table(result):
    """The Markdown table of a result file."""
    titles = dict(
        sigterm='SIGTERM amid training, resumed', workers='0, 1 and 4 workers; another seed',
        torchrun='`torchrun --nnodes=2 --max-restarts=3`, a training process killed', **{'ctrl-c': 'Ctrl-C, resumed'})
    rows = []
    for name, found in result['cases'].items():
        title = titles.get(name) or (
            f'{found["kills"]} × SIGKILL, {name[5]} process{"es" if name[5] == "2" else ""}'
            f'{", `--deterministic`" if name.endswith("deterministic") else ""}')
        detail = {'sigterm': 'status {status}, {lines} line', 'ctrl-c': 'status {status}, {lines} line',
                  'workers': 'another seed: {another_seed} differ', 'torchrun': 'started {starts} times'}.get(
            name, '{while_writing} while a checkpoint was written; all ended within {seconds_to_the_end_of_all} s')
        if found.get('before_meeting') and name.startswith('kill-2'):
            detail += ', but for {before_meeting} in which they had not met'
        rows.append([title, f'{found["differing"]} of {found["tensors"]}', detail.format(**found)])
    return markdown_table(['what happened', 'tensors that differ from the undisturbed run', ''], rows)


def report(result):
    return f'# Training that is killed\n\n{table(result)}\n'
