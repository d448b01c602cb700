"""Time of sliding windows: what the table says of seconds worked by hand."""
from studies.window_memory import Picture
from studies.window_speed import better_stock, report, table, words

SIZE = Picture(512, 683)


def process(load=0.1, tta=False, **seconds):
    return dict(busy_before=0.01, load_average=load, rows=[
        dict(SIZE._replace(tta=tta)._asdict(), candidate=name.replace('_', ', '), seconds=values)
        for name, values in seconds.items()])


def result(*processes):
    return dict(environment=dict(command='python x', commit='abc', date='2026-01-02T03:04', device_name='Some CPU',
                                 versions=dict(torch='2.14')), config='configs/c.py', threads=2,
                processes=list(processes))


def test_ours_is_compared_with_stock_in_its_faster_layout_by_the_median_of_each_process():
    first = process(stock=[9., 8., 7.], stock_NHWC=[4., 4., 5.], accelerated=[2., 2., 2.], fp32=[1., 1., 1.],
                    bf16=[1., 1., 1.])
    found = result(first)
    assert better_stock(found, SIZE) == 'stock, NHWC'
    lines = table(found).splitlines()
    assert lines[2] == "| 512×683 | MMSegmentation's segmentor (NCHW) | 8.00 | 0.50 |  |"
    assert lines[3] == "| 512×683 | MMSegmentation's segmentor (NHWC) | 4.00 | – |  |"
    assert lines[4] == '| 512×683 | accelerated | 2.00 | 2.00 | missed, by one process |'
    assert words(found) == 'One process. With test-time augmentation nothing was measured.'
    slower = process(0.7, stock=[18.], stock_NHWC=[12.], accelerated=[2.], fp32=[2.], bf16=[2.])
    both = result(first, slower)
    assert '| 2.00 | 4.00 (2.00–6.00) | reached, the interval covers the goal |' in table(both)      # 4 / 2 and 12 / 2
    assert 'two values have none' in words(both)
    assert words(both) in report(both) and 'load average 0.1 to 0.7' in report(both)


def test_with_test_time_augmentation_stock_is_that_with_it_too():
    plain = process(stock=[9.], stock_NHWC=[8.], accelerated=[4.], fp32=[3.], bf16=[2.])
    plain['rows'] += process(tta=True, stock=[30.], stock_NHWC=[40.], accelerated=[10.])['rows']
    lines = table(result(plain)).splitlines()
    assert len(lines) == 2 + 5 + 3 and '| 512×683 | accelerated | 4.00 | 2.00 |' in lines[4]
    assert lines[-1] == '| 512×683, TTA | accelerated | 10.00 | 3.00 | reached, by one process |'
    assert words(result(plain)) == 'One process.'
    old = process(stock=[9.], stock_NHWC=[8.], accelerated=[4.])
    for row in old['rows']:
        del row['tta']      # files of before
    assert 'TTA' not in table(result(old))
