"""Timing the forms of an operator on a machine that may be doing other things, too.

A thread that waits for a core counts for the form that it happens to run, and two threads that wait for each other take
ten times as long on a busy machine as on a quiet one. Linux says how long each thread has waited (``schedstat``): times
in which this process waited are not used.

A GPU runs what is queued. There each form runs a few times before it is timed, since its first call loads kernels and
lets cuDNN try its own; and a time is that of several calls in a row, so that it is the device's and not the host's.
"""
import contextlib
import copy
import functools
import math
import time
from pathlib import Path

import torch
import torch.nn as nn
from mmengine.logging import print_log

from ..provenance import synchronize

# Undisturbed times of each form that are enough, tries, and seconds after which there is no further try.
ENOUGH, TRIES, SECONDS = 4, 12, 0.25
# Seconds after which a time that was disturbed ends the timing: the machine is busy, and a later run may find it quiet.
GIVEN_UP = 2
# A form that takes this many times as long as another when both are warm is not timed again.
HOPELESS = 3
# One whose first time is so many seconds, of which little is planning, and so many times another's, is timed once only.
LONG, CLEARLY = 0.5, 1.5
# Waiting, as a share of the time, that disturbs it.
DISTURBED = 0.1
# Elsewhere than on a CPU: calls before the first time, and calls in a row of one time, as many as fit into the seconds.
WARM_UP, QUEUED, QUEUE_SECONDS = 2, 10, 0.02


def time_forms(forms, args, device, clock=time.perf_counter, waited=None):
    """Seconds of each form, the least of a few undisturbed times, in turn.

    Args:
        forms (dict[str, Form]): Those that can run.
        args (tuple): The operator's arguments; they stay as they are.
        clock (Callable), waited (Callable): Seconds now, and those that threads have waited so far; for tests.

    Returns:
        dict[str, float]: Of one call; infinity where every time was disturbed. A form that fails, for want of memory,
        is left out, and so are those that come after the timing was given up.
    """
    waited = waited or seconds_waited
    samples, times, fastest, begin = {}, {}, math.inf, clock()

    def is_given_up():
        return clock() - begin > GIVEN_UP and any(min(found) == math.inf for found in times.values())

    for name, form in forms.items():
        if is_given_up():
            break
        with leaving_out(name, times, samples):
            samples[name] = sample = sampling(prepared(form, args), device, clock, waited)
            first = sample()        # on a CPU it compiles, allocates, plans
            times[name] = [first]
            if is_given_up():
                break
            # Of what takes a tenth of a second, little is planning.
            hopeless = math.inf > first > min(max(0.1, 2 * HOPELESS * fastest), max(LONG, CLEARLY * fastest))
            if not hopeless:
                times[name] = [sample()]
            fastest = min(fastest, times[name][0])
    for attempt in range(TRIES):
        late = clock() - begin > SECONDS
        for name, sample in list(samples.items()):
            if is_given_up():
                break
            enough = 1 if late and (attempt or min(times[name]) > LONG) else ENOUGH
            undisturbed = sum(map(math.isfinite, times[name]))
            hopeless = undisturbed and min(times[name]) > HOPELESS * fastest
            if not hopeless and undisturbed < enough and (not late or attempt < TRIES // 4):
                with leaving_out(name, times, samples):
                    times[name].append(sample())
                    fastest = min(fastest, times[name][-1])
    return {name: min(seconds) for name, seconds in times.items()}


@contextlib.contextmanager
def leaving_out(name, *tables):
    """A form that fails in the block, for want of memory or of a kernel, leaves the tables; a log line says so."""
    try:
        yield
    except Exception as error:
        for table in tables:
            table.pop(name, None)
        print_log(f'The form {name!r} is not measured, since it fails: {type(error).__name__}: {error}', 'current')


def sampling(call, device, clock, waited):
    """A function that times ``call``, which has run before unless the device is a CPU."""
    count = 1
    if device.type != 'cpu':
        for _ in range(WARM_UP):
            seconds = timed(call, device, clock, lambda: 0.)
        count = max(1, min(QUEUED, int(QUEUE_SECONDS / max(seconds, 1e-9))))
    return functools.partial(timed, call, device, clock, waited, count)


def timed(call, device, clock, waited, count=1):
    """Seconds that each of ``count`` calls in a row took, or infinity where threads of this process waited for a core
    meanwhile."""
    synchronize(device)
    waited_before, begin = waited(), clock()
    for _ in range(count):
        call()
    synchronize(device)
    seconds = clock() - begin
    return math.inf if waited() - waited_before > DISTURBED * seconds else seconds / count


def run_once(form, args, device):
    """Run ``form``, forward and backward, and wait for it; where it fails, the timing says so."""
    with contextlib.suppress(Exception):
        prepared(form, args)()
        synchronize(device)


def seconds_waited():
    """Seconds that the threads of this process were ready to run and did not, in all; 0 where no one knows."""
    nanoseconds = 0
    try:
        for task in Path('/proc/self/task').iterdir():
            nanoseconds += int((task / 'schedstat').read_text().split()[1])
    except (OSError, ValueError, IndexError):   # not Linux, or a thread that has just ended
        return nanoseconds / 1e9
    return nanoseconds / 1e9


def prepared(form, args):
    """A function that runs ``form`` forward and, where gradients are needed, backward, and leaves nothing behind."""
    args = [isolated(x) for x in args]
    leaves = [x for x in leaves_of(args) if x.requires_grad] if torch.is_grad_enabled() else []
    device = first_tensor(args).device.type

    def call():
        out = form.run(*args)
        out = [y for y in ([out] if isinstance(out, torch.Tensor) else out)
               if isinstance(y, torch.Tensor) and y.requires_grad]
        if leaves and out:
            with torch.autocast(device, enabled=False):      # as where a training step calls backward
                torch.autograd.grad(out, leaves, list(map(torch.ones_like, out)), allow_unused=True)

    return call


def first_tensor(args):
    """The map that an operator's arguments begin with, or the first of its maps."""
    return args[0] if isinstance(args[0], torch.Tensor) else args[0][0]


def isolated(x):
    """A tensor without its history, a module whose buffers are its own."""
    if isinstance(x, torch.Tensor):
        return x.detach().requires_grad_(x.requires_grad)
    if isinstance(x, nn.Module):
        return copy.deepcopy(x)
    if isinstance(x, list | tuple) and not isinstance(x, torch.Size):
        return getattr(x, '_make', type(x))(map(isolated, x))      # a named tuple takes its fields one by one
    return x


def leaves_of(args):
    for x in args:
        if isinstance(x, torch.Tensor):
            yield x
        elif isinstance(x, nn.Module):
            yield from x.parameters()
        elif isinstance(x, list | tuple) and not isinstance(x, torch.Size):
            yield from leaves_of(x)
