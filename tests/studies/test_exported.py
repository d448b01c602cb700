"""The tables of exported files, from results written by hand."""
from studies.exported import report, summary

MIB = 2**20


def run(runtime, form, dtype, seconds, memory, family='inceptionnext', equal=1.):
    threads = {'2': dict(seconds=seconds, first=1.5)}
    return dict(cell=[family, runtime, form, dtype], threads=threads, memory=memory * MIB, equal=equal, load=0.5)


RESULT = dict(
    commit='abc123', versions=dict(onnxruntime='1.32', openvino='2026.4', nncf='3.4'),
    environment=dict(cpu='A CPU', cpu_cores=2, cpu_capability='AVX512', versions=dict(torch='2.14.1'),
                     date='2026-01-02T03:04:05', command='python -m studies.exported'),
    runs=[run('onnx', 'plain', 'fp32', [4., 2., 3.], 100), run('onnx', 'plain', 'fp32', [5., 5., 6.], 300),
          run('onnx', 'plain', 'fp32', [4.], 200), run('onnx', 'winograd', 'fp32', [2.], 100, equal=0.9999),
          run('openvino', 'winograd', 'fp32', [9.], 100), run('torch', 'plain', 'fp32', [7.], 100, 'convnext')],
    accuracy=dict(config='a.py', how='trained by hand', calibration=32, rows=[
        dict(what='onnx int8', images=101, model=41., file=40.75, equal=99.1)]))


def test_a_cell_is_the_median_over_processes_and_compared_with_its_runtimes_plain_graph():
    found = {cell.runtime: {} for cell in summary(RESULT, 'inceptionnext', 2)}
    for cell, row in summary(RESULT, 'inceptionnext', 2).items():
        found[cell.runtime][cell.form] = row
    plain = found['onnx']['plain']
    assert (plain['seconds'], plain['low'], plain['high'], plain['processes']) == (4., 3., 5., 3)
    assert plain['memory'] == 300 * MIB
    assert found['onnx']['winograd']['faster'] == 2.
    assert found['openvino']['winograd']['faster'] is None


def test_the_report_has_a_table_for_each_model_that_was_measured_and_the_accuracy():
    text = report(RESULT)
    for expected in ('InceptionNeXt-T, 2 threads', 'ConvNeXt-T, 2 threads', 'abc123', 'nncf 3.4',
                     '| ONNX Runtime | winograd | fp32 | 2.00 | 2.00–2.00 | 1 | 2.00 | 1.5 | 100 | 99.990 |',
                     'trained by hand: mIoU in torch fp32 41.00 % on the 101', '| onnx int8 | 40.75 | -0.25 | 99.10 |'):
        assert expected in text
