"""The table of every form of every operator, from a result worked by hand, and what a run goes on with."""
import json

import pytest

from inceptionnext_seg.errors import UserError
from studies import operator_choices
from studies.operator_choices import known_forms, opened, report, words

ROWS = [dict(operator='norm_mlp', first_map='2×96×128×128', arguments='', form='native', rule='native',
             seconds=dict(native=0.01, torch=0.025)),
        dict(operator='patch_conv2d', first_map='2×3×512×512', arguments='', form='torch', rule='product',
             seconds=dict(product=0.002, torch=0.001))]
RUN = dict(network='t', mode='train', dtype='fp32', size=64, busy_before=0.1, choices=ROWS)
ENVIRONMENT = dict(command='python x', commit='abc1234', cpu='Some CPU', cpu_cores=2, device_name='Some CPU', threads=2,
                   versions=dict(torch='2.14'), date='2026-01-02T03:04')


def test_the_report_says_how_far_stock_is_behind_and_where_the_rule_was_wrong():
    text = report(dict(environment=ENVIRONMENT, runs=[RUN]))
    assert '2 kinds of calls of 1 steps at 64×64' in text
    assert 'least 1.00, greatest 2.5' in text and 'In 1 another form' in text
    assert '| t | train, fp32 | 2 | 1.00 | 1.75 | 2.5 | 0 |' in text
    assert 'Goal: no call slower than stock. Reached by all 2.' in text
    slower = dict(ROWS[0], form='native', seconds=dict(native=0.01, torch=0.0096))
    assert words(dict(runs=[RUN, dict(RUN, choices=[slower])])).endswith(
        'Missed by 1 of 3, of which the slowest has 0.960 of the speed of stock.')
    assert 'native 10, torch 25' in text and 'commit abc1234,' in text and 'Some CPU, 2 threads' in text


def test_the_report_names_every_commit_that_measured():
    runs = [dict(RUN, commit=commit) for commit in ('abc1234', 'def5678', 'abc1234')]
    assert 'commit abc1234, def5678, Some CPU' in report(dict(environment=ENVIRONMENT, runs=runs))


def test_a_run_goes_on_on_the_same_machine_alone(tmp_path):
    path = tmp_path / 'a.json'
    assert opened(path, ENVIRONMENT)['runs'] == []
    path.write_text(json.dumps(dict(environment=ENVIRONMENT, runs=[RUN])))
    assert opened(path, dict(ENVIRONMENT, commit='def5678', date='2026-02-03'))['runs'] == [RUN]
    with pytest.raises(UserError, match=r"cpu 'Some CPU'.*'Other CPU'.*another --out"):
        opened(path, dict(ENVIRONMENT, cpu='Other CPU'))


def test_known_forms_that_are_not_there_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(operator_choices, 'forms_file', lambda path: tmp_path / 'forms.json')
    with pytest.raises(UserError, match=r'--known speed\.json.*not in the cache'):
        known_forms('speed.json')
    (tmp_path / 'forms.json').write_text('{}')
    assert known_forms('speed.json') == tmp_path / 'forms.json'
