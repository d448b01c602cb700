"""The fastest form of each operator, measured on the machine that runs it.

A rule of thumb found on one processor is wrong on the next. Inside :func:`measuring`, an operator on 'auto' that meets
arguments of a kind it has not met before times the forms that can take them, torch's among them, forward and backward
together where gradients are needed, and remembers the fastest. Everywhere else the remembered form runs, and the rule
of thumb where there is none: so no time is ever measured in the middle of a step.

A form has to win by 5 % to replace the rule of thumb. Measuring ends after some seconds; what is left then, a later
run measures. The table is kept in a file beside the C++ kernels, named by processor, versions and the sources of the
operators; ``INCEPTIONNEXT_SEG_MEASURE=0`` turns measuring off.
"""
import contextlib
import functools
import hashlib
import json
import math
import os
import tempfile
import time
import weakref
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from mmengine.logging import print_log

from .._fast import plain_type
from .._version import __version__
from ..provenance import convolutions_take_tf32, products_take_tf32
from . import _native as native
from . import _triton
from .stopwatch import first_tensor, run_once, time_forms

# By how much a form has to be faster than the rule of thumb's.
MARGIN = 0.05
# Seconds of measuring after which no further operator is begun; what is left is measured in the runs that follow.
PATIENCE = 20.
# What a look-up has not met.
UNKNOWN = object()
# Above this number of bytes a cache file is none of ours: an entry has some 600 bytes, a network some 50 entries.
LARGEST_FILE = 16 << 20


class Choice(NamedTuple):
    """What was measured for one operator and one kind of arguments.

    Attributes:
        operator (str): Its name.
        arguments (str): What the times depend on: device, threads, autocast, shapes, dtypes, layouts, modules.
        form (str): What runs.
        rule (str | None): What the rule of thumb takes; None where a checkpoint brought the form, and it was not
            measured here.
        seconds (dict[str, float]): Of every form that was timed and did not fail.
    """
    operator: str
    arguments: str
    form: str
    rule: str | None
    seconds: dict

    @property
    def gain(self):
        """Time of stock's operators over that of the form that runs; None where one of them has no time."""
        times = self.seconds.get('torch'), self.seconds.get(self.form)
        return None if None in times else times[0] / times[1]


class Choices(list):
    """List of :class:`Choice`; ``str()`` is a table of them."""

    def __str__(self):
        if not self:
            return 'No operator was measured: rules of thumb choose.'
        rows = [('operator', 'first map', 'form', 'rule of thumb', 'ms', 'torch / form')]
        rows += [(c.operator, first_map(c), c.form, c.rule or 'of the checkpoint',
                  f'{1e3 * c.seconds[c.form]:.2f}' if c.form in c.seconds else '-',
                  '-' if c.gain is None else f'{c.gain:.2f}') for c in self]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
                         for row in rows)


def first_map(choice):
    """Shape of the first tensor among a choice's arguments."""
    shape = choice.arguments.partition('torch.Size([')[2].partition(']')[0]
    return shape.replace(', ', '×')


class Table:
    """Choices by what they are for, of this process; those that a checkpoint brought come before those measured here.

    Attributes:
        measured (dict[str, Choice]): By operator and arguments.
        pinned (dict[str, str]): Forms of a run that is resumed, by the same.
        passes (set[str]): Models, with batches, that were measured as a whole (:func:`remember_pass`).
        used (dict[str, str]): The form of each kind of arguments that was looked up and found since :meth:`clear`.
    """

    def __init__(self):
        self.clear()

    def clear(self):
        self.measured, self.pinned, self.passes, self.used = {}, {}, set(), {}
        self.forget()
        self.read = set()       # files

    def forget(self):
        """What was looked up: the table has changed."""
        self.found = {}

    @property
    def is_empty(self):
        return not (self.measured or self.pinned)

    def lookup(self, operator, forms, arguments):
        """The form for a tuple of :func:`describe`, or None."""
        # The dictionary at hand: forget() of another thread, which loads a model, takes it away from this one.
        key, found = (operator, arguments), self.found
        form = found.get(key, UNKNOWN)
        if form is UNKNOWN:
            text = as_text(operator, arguments)
            form = self.pinned.get(text)
            if form is None and text in self.measured:
                form = self.measured[text].form
            form = found[key] = form if form in forms else None
            if form is not None:
                self.used[text] = form
        return form

    def add(self, choice):
        self.measured[as_text(choice.operator, choice.arguments)] = choice
        self.forget()


TABLE = Table()


class Pass(NamedTuple):
    """A time of measuring.

    Attributes:
        choices (Choices): What was measured.
        seconds (list[float]): That each operator took, be it in vain.
        disturbed (list[str]): Operators that could not be measured: every time of a form was disturbed by other work on
            the machine, or all forms failed.
        left (list[str]): Operators that were not begun, since ``patience`` was at its end.
        patience (float): Seconds.
        met (set[str]): Kinds of calls that need not be tried again in this time.
    """
    choices: Choices
    seconds: list
    disturbed: list
    left: list
    patience: float
    met: set

    @property
    def is_whole(self):
        """Whether nothing was left out."""
        return not (self.disturbed or self.left)


current = None      # the Pass, inside measuring()
clock = time.perf_counter


def as_text(operator, arguments):
    return f'{operator} {arguments}'


# What a time depends on


descriptions = weakref.WeakKeyDictionary()


def describe(x):
    """Of an operator's argument, what its time depends on, as something that can be compared and printed."""
    if isinstance(x, torch.Tensor):
        layout = ('nchw' if x.is_contiguous() else
                  'nhwc' if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) else x.stride())
        return x.shape, x.dtype, layout, x.requires_grad
    if isinstance(x, nn.Module):
        text = descriptions.get(x)
        if text is None:
            text = descriptions[x] = f'{plain_type(x).__name__}({x.extra_repr()})'
        return text, x.training, *[describe(p) for p in x._parameters.values() if p is not None]
    if isinstance(x, list | tuple) and not isinstance(x, torch.Size):
        return tuple(map(describe, x))
    return x


def describe_call(args):
    """Of all arguments, with the state of torch that the time depends on."""
    device = first_tensor(args).device
    autocast = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None
    return device.type, settings_of(device), autocast, torch.is_grad_enabled(), *map(describe, args)


def settings_of(device):
    """What the time of every operator on a device depends on, beside its arguments."""
    if device.type == 'cpu':
        return (torch.get_num_threads(), )
    return accelerator(device), convolutions_take_tf32(), products_take_tf32(), torch.backends.cudnn.benchmark


@functools.cache
def accelerator(device):
    return torch.cuda.get_device_name(device) if device.type == 'cuda' else str(device)


# Choosing


def applies():
    """Whether what was measured decides. It does not where the result may not depend on a clock, and where a graph is
    compiled, whose operators are others."""
    return not (ruled or torch.compiler.is_compiling() or torch.are_deterministic_algorithms_enabled())


ruled = False       # whether this is inside by_rules()


@contextlib.contextmanager
def by_rules():
    """Inside, rules of thumb choose, whatever was measured: where kernels do not wait for the host, the times of small
    ones, which are the host's, say nothing."""
    global ruled
    before, ruled = ruled, True
    try:
        yield
    finally:
        ruled = before


def choose(operator, forms, rule, args):
    """The form that runs.

    Args:
        operator (str), forms (dict[str, Form]): As of :func:`.dispatch.choose`.
        rule (Callable): Of forms and args to what the rule of thumb takes; asked only where that runs, or is measured
            against.
    """
    if not applies() or (current is None and TABLE.is_empty):
        return rule(forms, args)
    arguments = describe_call(args)
    form = TABLE.lookup(operator, forms, arguments)
    if form is None and current is not None:
        form = measure(operator, forms, rule(forms, args), args, arguments)
    # What is remembered depends on shapes and types alone: a library or a hook may be in the way of it today.
    return rule(forms, args) if form is None or forms[form].why_not(*args) is not None else form


def measure(operator, forms, rule, args, arguments):
    """Times the forms and remembers the fastest; None where nothing is to be chosen, or nothing could be measured."""
    global current
    names = [name for name, form in forms.items() if form.why_not(*args) is None and form.timed(*args)]
    first = first_tensor(args)
    text = as_text(operator, arguments)
    if len(names) < 2 or not first.numel() or text in current.met:
        return None
    current.met.add(text)
    if sum(current.seconds) > current.patience:
        current.left.append(operator)
        return None
    found, current, begin = current, None, clock()    # operators inside a form are not timed inside it
    try:
        if rule in names and first.device.type != 'cpu':
            # The first step would compile its kernels, too: that is not measuring.
            run_once(forms[rule], args, first.device)
            begin = clock()
        seconds = time_forms({name: forms[name] for name in names}, args, first.device)
    finally:
        current = found
    found.seconds.append(clock() - begin)
    if math.inf in seconds.values() or not seconds:
        found.disturbed.append(operator)
        return None
    best = min(seconds, key=seconds.get)
    # A form that failed, for want of memory, has no time, be it the rule of thumb's.
    form = rule if rule in seconds and seconds[best] >= (1 - MARGIN) * seconds[rule] else best
    choice = Choice(operator, str(arguments), form, rule, seconds)
    TABLE.add(choice)
    found.choices.append(choice)
    return TABLE.lookup(operator, forms, arguments)


# Public


def is_enabled():
    return os.environ.get('INCEPTIONNEXT_SEG_MEASURE') != '0'


@contextlib.contextmanager
def measuring(patience: float = PATIENCE):
    """Inside, operators on 'auto' measure what they have not met before, and the results go to the cache file.

    Call a model once in it, with a batch of the shape that is to come, in training with gradients::

        inceptionnext_seg.accelerate(model)
        with inceptionnext_seg.measuring():
            model(images)

    Parameters and their gradients stay as they are. Batch norms in training see the batch once, as in any forward.
    Under ``torch.use_deterministic_algorithms`` nothing is measured: the result may not depend on a clock.

    Args:
        patience: Seconds of measuring after which no further operator is begun; ``math.inf`` measures all. What is left
            follows its rule of thumb, and is measured the next time.

    Yields:
        Pass: What was measured so far.
    """
    global current
    before, found = current, Pass(Choices(), [], [], [], patience, set())
    if is_enabled():
        read_cache()
        current = found
    try:
        yield found
    finally:
        current = before
        if found.choices:
            write_cache()


def recall():
    """Let what earlier runs measured on this machine choose in this process, too, which measures nothing itself."""
    if is_enabled():
        read_cache()


def choices() -> Choices:
    """What runs in this process because it was measured: operator, kind of arguments, form, and each form's seconds.

    A run that is resumed takes the forms of its checkpoint; where they were not measured on this machine, there are no
    seconds.
    """
    return Choices(used_choice(text, form) for text, form in TABLE.used.items())


def used_choice(text, form):
    operator, _, arguments = text.partition(' ')
    known = TABLE.measured.get(text)
    return Choice(operator, arguments, form, known and known.rule, known.seconds if known else {})


# Passes over a whole model


def is_known_pass(signature):
    """Whether a model with this batch was measured before: reads the cache file."""
    read_cache()
    return signature in TABLE.passes


def remember_pass(signature):
    TABLE.passes.add(signature)
    write_cache()


# Exchange with other processes, and with checkpoints


def exported():
    """The forms in use, for a checkpoint: text to text."""
    return dict(TABLE.used)


def pin(forms):
    """Take these forms (of :func:`exported`) from now on, wherever they can run."""
    TABLE.pinned.update(forms)
    TABLE.forget()


def state():
    """All that was measured, as :func:`load_state` takes it: plain lists and text."""
    return dict(choices=[list(choice) for choice in TABLE.measured.values()], passes=sorted(TABLE.passes))


def load_state(state):
    """Add what another process measured.

    Raises:
        ValueError: It is not of :func:`state`.
    """
    try:
        for operator, arguments, form, rule, seconds in state['choices']:
            texts = (operator, arguments, form, rule, *seconds)
            if not all(isinstance(x, str) for x in texts) or form not in seconds:
                raise ValueError('an entry without form or times')
            if not all(isinstance(x, float) and 0 < x < math.inf for x in seconds.values()):
                raise ValueError('a time that is none')
            TABLE.measured.setdefault(
                as_text(operator, arguments), Choice(operator, arguments, form, rule, dict(seconds)))
        TABLE.passes.update(text for text in state['passes'] if isinstance(text, str))
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f'no table of choices: {error!r}') from error
    finally:
        TABLE.forget()


# The file


@functools.cache
def sources():
    """SHA-256 of the operators' sources, on which times depend."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for path in sorted([*folder.glob('*.py'), *folder.glob('csrc/*')]):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_file():
    """Path of the file of this machine, these versions and these sources.

    Raises:
        OSError | RuntimeError: There is no folder that is this user's alone.
    """
    versions = torch.__version__, torch.version.cuda, torch.version.hip, _triton.version(), __version__
    key = hashlib.sha256('\n'.join([native.processor(), str(versions), sources()]).encode()).hexdigest()
    return native.private_folder(native.cache_folder()) / f'choices-{key[:16]}.json'


def read_cache():
    """Add what earlier processes measured; a file that is missing, or not as it should be, is none."""
    try:
        path = cache_file()
        if path in TABLE.read:
            return
        TABLE.read.add(path)
        if path.is_file() and path.lstat().st_size <= LARGEST_FILE:
            load_state(json.loads(native.own_bytes(path)))
    except (OSError, RuntimeError, ValueError, RecursionError) as error:
        print_log(f'Choices measured earlier are not used: {error}', 'current')


def write_cache():
    try:
        path = cache_file()
        TABLE.read.discard(path)
        read_cache()            # what another process has measured meanwhile stays
        with tempfile.NamedTemporaryFile('w', dir=path.parent, prefix=path.name, delete=False) as file:
            json.dump(state(), file)
        Path(file.name).replace(path)
    except (OSError, RuntimeError) as error:
        print_log(f'Choices are not kept for the next run: {error}', 'current')
