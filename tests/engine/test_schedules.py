"""Schedules of another length than the run, by hand-worked cases; test_loops.py has the rates that runs train with."""
import copy

import pytest

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


def test_what_was_changed_is_told_with_both_values():
    assert fit_schedules([warm_up(30), decay(30, 300)], 50) == [
        'LinearLR.end 30 → 5', 'PolyLR.begin 30 → 5', 'PolyLR.end 300 → 50']
    assert 'LinearLR left out' in fit_schedules([warm_up(30), decay(30, 300)], 1)


@pytest.mark.parametrize('more', [dict(milestones=[100]), dict(type='CosineRestartLR', periods=[200, 100])])
def test_a_length_of_another_kind_is_for_the_user_to_say(more):
    with pytest.raises(UserError, match=rf'max_iters is 50.* 300 .*{next(reversed(more))}.*fit_schedules=False'):
        fit_schedules([decay(0, 300), decay(0, 300, **more)], 50)
