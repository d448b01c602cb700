"""The table of every form of every operator, from a result worked by hand."""
from studies.operator_choices import report


def test_the_report_says_how_far_stock_is_behind_and_where_the_rule_was_wrong():
    rows = [dict(operator='norm_mlp', first_map='2×96×128×128', arguments='', form='native', rule='native',
                 seconds=dict(native=0.01, torch=0.025)),
            dict(operator='patch_conv2d', first_map='2×3×512×512', arguments='', form='torch', rule='product',
                 seconds=dict(product=0.002, torch=0.001))]
    text = report(dict(
        environment=dict(command='python x', commit='abc1234', cpu='Some CPU', threads=2, versions=dict(torch='2.14'),
                         date='2026-01-02T03:04'),
        runs=[dict(network='t', mode='train', dtype='fp32', size=64, busy_before=0.1, choices=rows)]))
    assert '2 kinds of calls of 1 steps at 64×64' in text
    assert 'least 1.00, greatest 2.5' in text and 'In 1 another form' in text
    assert '| t | train, fp32 | 2 | 1.00 | 1.75 | 2.5 | 0 |' in text
    assert 'native 10, torch 25' in text and 'abc1234' in text and 'Some CPU, 2 threads' in text
