"""Schedules of another length than the run, by hand-worked cases; test_loops.py has the rates that runs train with."""
import copy

import pytest
import torch
from mmengine.registry import PARAM_SCHEDULERS

from inceptionnext_seg.engine.schedules import fit_schedules
from inceptionnext_seg.errors import UserError


def warm_up(end, **settings):
    return dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=end, **settings)


def decay(begin, end, **settings):
    return dict(dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=begin, end=end), **settings)


@pytest.mark.parametrize(('schedules', 'max_iters', 'expected'), [
    # As written.
    ([warm_up(1500), decay(1500, 160000)], 160000, [warm_up(1500), decay(1500, 160000)]),
    # The warm-up keeps its length up to half of the run.
    ([warm_up(1500), decay(1500, 160000)], 320000, [warm_up(1500), decay(1500, 320000)]),
    ([warm_up(1500), decay(1500, 160000)], 4000, [warm_up(1500), decay(1500, 4000)]),
    ([warm_up(1500), decay(1500, 160000)], 3000, [warm_up(1500), decay(1500, 3000)]),
    # And its share of it beyond: 1500 of 160000.
    ([warm_up(1500), decay(1500, 160000)], 2999, [warm_up(28), decay(28, 2999)]),
    ([warm_up(30), decay(30, 300)], 50, [warm_up(5), decay(5, 50)]),
    ([warm_up(30), decay(30, 300)], 1, [decay(0, 1)]),
    # One iteration would not rise; two do.
    ([warm_up(1500), decay(1500, 160000)], 200, [decay(0, 200)]),
    ([warm_up(1500), decay(1500, 160000)], 220, [warm_up(2), decay(2, 220)]),
    ([warm_up(1), decay(1, 300)], 50, [warm_up(1), decay(1, 50)]),
    ([decay(0, 40000)], 80000, [decay(0, 80000)]),
    # Steps between warm-up and end keep their share of what is between.
    ([warm_up(100), decay(100, 600), decay(600, 1100)], 600, [warm_up(100), decay(100, 350), decay(350, 600)]),
    ([dict(decay(100, 1100), type='CosineAnnealingLR', T_max=1000), warm_up(100)], 600,
     [dict(decay(100, 600), type='CosineAnnealingLR', T_max=500), warm_up(100)]),
    # A line that falls is no warm-up.
    ([dict(type='LinearLR', start_factor=1., end_factor=0., by_epoch=False, end=100)], 50,
     [dict(type='LinearLR', start_factor=1., end_factor=0., by_epoch=False, end=50)]),
    # Nothing says for how many iterations these were written.
    ([warm_up(1500)], 4000, [warm_up(1500)]),
    ([dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=0, end=1)], 9,
     [dict(type='ConstantLR', factor=1.0, by_epoch=False, begin=0, end=1)]),
    ([warm_up(1500), dict(type='MultiStepLR', by_epoch=False, milestones=[9])], 4000,
     [warm_up(1500), dict(type='MultiStepLR', by_epoch=False, milestones=[9])]),
    # Epochs are another count.
    ([dict(type='PolyLR', begin=0, end=12)], 4000, [dict(type='PolyLR', begin=0, end=12)]),
    ([], 4000, [])])
def test_schedules_end_with_the_run(schedules, max_iters, expected):
    before = copy.deepcopy(schedules)
    changes = fit_schedules(schedules, max_iters)
    assert schedules == expected
    assert bool(changes) == (before != expected)


@pytest.mark.parametrize('max_iters', [1, 2, 106, 107, 213, 214, 2999, 3000])
@pytest.mark.parametrize('kind', [
    dict(type='LinearLR', start_factor=1e-6), dict(type='ConstantLR', factor=1e-6)], ids=str)
def test_a_run_of_any_length_trains_at_the_rate_of_the_config(max_iters, kind):
    """The decay goes on from what the warm-up has come to."""
    schedules = [dict(kind, by_epoch=False, begin=0, end=1500), decay(1500, 160000)]
    fit_schedules(schedules, max_iters)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.)
    built = [PARAM_SCHEDULERS.build(dict(schedule, optimizer=optimizer)) for schedule in schedules]
    rates = [optimizer.param_groups[0]['lr']]
    for _ in range(max_iters - 1):
        optimizer.step()
        for scheduler in built:
            scheduler.step()
        rates.append(optimizer.param_groups[0]['lr'])
    assert max(rates) > 0.99


def test_what_was_changed_is_told_with_both_values():
    assert fit_schedules([warm_up(30), decay(30, 300)], 50) == [
        'LinearLR.end 30 → 5', 'PolyLR.begin 30 → 5', 'PolyLR.end 300 → 50']
    assert 'LinearLR left out' in fit_schedules([warm_up(30), decay(30, 300)], 1)


@pytest.mark.parametrize('more', [dict(milestones=[100]), dict(type='CosineRestartLR', periods=[200, 100])])
def test_a_length_of_another_kind_is_for_the_user_to_say(more):
    with pytest.raises(UserError, match=rf'max_iters is 50.* 300 .*{next(reversed(more))}.*fit_schedules=False'):
        fit_schedules([decay(0, 300), decay(0, 300, **more)], 50)
