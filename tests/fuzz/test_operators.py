"""Every form of every operator against stock operators, on random arguments; alone, in threads, and after a fork."""
import os
import signal
import time
from multiprocessing.pool import ThreadPool

import hypothesis.strategies as st
import pytest
import torch

from inceptionnext_seg.errors import UserError
from inceptionnext_seg.ops.dispatch import FormError

from .operators import OPERATORS, cases
from .running import fuzzed
from .tensors import assert_alike, assert_not_hidden

DIFFERENTIABLE = tuple(name for name in OPERATORS if name != 'upsampled_argmax')
# Seconds for an operator in another process, on a machine that may be busy.
PATIENCE = 120


def forms_of(case):
    return [*(form for form in case.forms if form not in ('torch', 'triton')), 'auto']


def check(case):
    """All forms of a case."""
    plain, exact = case('torch'), case('torch', exact=True)
    for form in forms_of(case):
        found, what = case(form), f'{form!r} of {case}'
        if isinstance(found, FormError):
            assert form != 'auto', found
        elif isinstance(exact, Exception):
            # What stock operators refuse is refused, but for empty maps, of which some take more, and what a user can
            # cause is a UserError of both.
            assert isinstance(found, Exception) or not found[0].numel(), f'{what}: stock raises {exact!r}'
            assert isinstance(found, UserError) == isinstance(exact, UserError), f'{what}: {found!r}, not {exact!r}'
        elif isinstance(plain, Exception):
            pass    # stock operators have no such dtype
        elif isinstance(found, Exception):
            raise AssertionError(what) from found
        else:
            assert_alike(found, exact, plain, case.dtype, what)


@pytest.mark.parametrize('operator', DIFFERENTIABLE)
@fuzzed(short=12, share=0.11, data=st.data())
def test_every_form_is_the_function_of_stock_operators(operator, data):
    case = data.draw(cases((operator, )))
    with case.setting():
        check(case)


@fuzzed(short=12, share=0.06, case=cases(('upsampled_argmax', )))
def test_every_form_finds_a_class_with_the_largest_logit(case):
    with case.setting():
        scores = case.scores()
        best = scores.amax(1)
        for form in forms_of(case):
            found = case(form)
            assert not isinstance(found, Exception), (form, case, found)
            assert found.shape == best.shape and found.dtype == torch.int64
            if found.numel():
                assert (best - scores.gather(1, found[:, None])[:, 0]).max() < 1e-4, (form, case)


@pytest.mark.parametrize('operator', DIFFERENTIABLE)
@fuzzed(short=6, share=0.03, data=st.data())
def test_no_form_hides_what_is_not_finite(operator, data):
    case = data.draw(cases((operator, ), poison=True))
    # An image that stochastic depth drops is not computed.
    if case.settings.get('factors') in ('some', 'all dropped'):
        case.settings['factors'] = 'none'
    with case.setting():
        plain = case('torch')
        if not isinstance(plain, Exception) and not case.poison_matters():
            return
        for form in forms_of(case):
            found = case(form)
            if not isinstance(plain, Exception) and not isinstance(found, FormError):
                assert not isinstance(found, Exception), (form, case, found)
                # Stock has 0 · NaN in gradient and weight of pixels that do not count.
                if operator != 'upsampled_cross_entropy' or not plain[0].isfinite():
                    assert_not_hidden(found, plain, f'{form!r} of {case}')


@fuzzed(short=6, share=0.02, case=cases(DIFFERENTIABLE))
def test_operators_run_in_several_python_threads_at_once(case):
    with case.setting(), ThreadPool(4) as pool:
        plain, exact = case('torch'), case('torch', exact=True)
        if isinstance(plain, Exception) or isinstance(exact, Exception):
            return
        for found in pool.map(lambda _: case('auto'), range(4)):
            assert not isinstance(found, Exception), (case, found)
            assert_alike(found, exact, plain, case.dtype, str(case))


def in_child(function):
    """Exit status of a fork that runs ``function``; it is killed after :data:`PATIENCE`."""
    child = os.fork()
    if not child:
        try:
            function()
        except BaseException as error:
            os.write(2, f'{error!r}\n'.encode())
            os._exit(1)
        os._exit(0)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return 'hangs'


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs os.fork')
@fuzzed(short=4, share=0.01, case=cases(DIFFERENTIABLE))
def test_operators_run_after_a_fork(case):
    """As a worker of a data loader does it: with one thread."""
    with case.setting():
        case('auto')    # the parent's threads have run, and are not there in the child

    def child():
        case.threads = 1
        with case.setting():
            check(case)

    assert in_child(child) == 0, case
