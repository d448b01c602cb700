"""Peak memory of sliding windows: what the table says of rows worked by hand."""
from studies.window_memory import report, table, words

MIB = 2**20


def row(candidate, peak, same=1.0, height=512, width=683):
    return dict(height=height, width=width, images=2, candidate=candidate, same=same, peak=(300 + peak) * MIB,
                before=300 * MIB)


def result(*rows):
    return dict(environment=dict(command='python x', commit='abc', date='2026-01-02T03:04', device_name='Some CPU',
                                 threads=2, versions=dict(torch='2.14')), config='configs/c.py', rows=list(rows))


def test_memory_is_a_share_of_that_of_stock_on_the_same_image():
    found = result(row('stock', 1000), row('fp32', 400, 0.9999), row('stock', 4000, width=2048),
                   row('fp32', 400, width=2048))
    lines = table(found).splitlines()
    assert lines[3] == '| 512×683 | deploy form, fp32 | 700 | 400 | 0.40 | 99.990 |'
    assert '| 0.10 |' in lines[5] and words(found).endswith('Reached by all.') and words(found) in report(found)


def test_what_misses_the_goal_is_named():
    found = result(row('stock', 1000), row('fp32', 510), row('bf16', 500))
    assert words(found).endswith('Missed by deploy form, fp32 at 512×683.')
