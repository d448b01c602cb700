"""The table of inference on a CPU, from results written by hand."""
from studies.cpu_inference import report, table

MIB = 2**20


def run(candidate, seconds, peak):
    return dict(candidate=candidate, seconds=seconds, peak=peak * MIB, before=100 * MIB, load=0.5)


ENTRY = dict(agreement={'fp32': 0.99999}, runs=[
    run('stock NCHW', [4., 2.], 1100), run('stock NHWC', [5., 6.], 900), run('fp32', [1., 1.5], 300),
    run('stock NCHW', [3.], 1000), run('fp32', [2.], 350)])


def test_candidates_are_compared_with_the_faster_stock_by_medians_and_the_highest_peak():
    rows = [[cell.strip() for cell in line.split('|')[1:-1]] for line in table(ENTRY).splitlines()]
    assert rows[0][5] == '× stock NCHW'
    assert rows[2] == ['stock NCHW', '3.00', '2.00–4.00', '3', '2', '1.00', '1000', '1.00', '–']
    assert rows[4] == ['fp32', '1.50', '1.00–2.00', '3', '2', '2.00', '250', '0.25', '99.999']


def test_the_report_names_its_conditions_and_the_difference_in_accuracy():
    environment = dict(cpu='A CPU', threads=2, cpu_cores=4, cpu_capability='AVX512', versions=dict(torch='2.14.1'),
                       date='2026-01-02T03:04:05', command='python -m studies.cpu_inference')
    accuracy = dict(config='camvid.py', images=101, calibration=32, mIoU=dict(fp32=23.5, int8=23.25),
                    same_classes_as_fp32=dict(fp32=1., int8=0.99))
    text = report(dict(config='c.py', commit='abc123', environment=environment, cells={'slide 1×2': ENTRY},
                       accuracy=accuracy))
    for expected in ('A CPU', 'abc123', 'slide 1×2', 'Load average 0.5', '| int8 | 23.25 | -0.25 | 99.00 |'):
        assert expected in text
