"""The conditions of a result file are taken from where its study records them."""
from studies.claims.checklist import checklist, row
from studies.claims.figures import Results, growing
from studies.speed.cells import cells
from studies.speed.summary import Result as Speed

MACHINE = dict(cpu='Some CPU', cpu_cores=2, load_average=9., threads=1, commit='later')


def row_of(folder, name, content):
    """Without the name of the file."""
    return row(folder / name, content, Results(folder))[1:]


def speed(*names):
    """A result of studies.speed: InceptionNeXt, twice as fast as ConvNeXt in the cells of these names."""
    records = [dict(cell=cell, process=0, candidate=candidate, layout='nhwc', seconds=[seconds], waited=[0.],
                    load_average=1.5, busy_before=0., run=0) for cell in names
               for candidate, seconds in (('inceptionnext', 1.), ('convnext', 2.))]
    return dict(environment=MACHINE, records=records, memory=[], runs=[dict(commit='abc')])


def test_of_trainings_each_run_records_load_threads_and_commit(tmp_path):
    runs = [dict(arm='inceptionnext_bn', seed=seed, load_average=1.5 + seed, threads=2, commit='abc')
            for seed in (0, 1)]
    content = dict(protocol='docs/studies/camvid_sequences.md', runs=runs, failed=[], environment=MACHINE)
    assert row_of(tmp_path, 'camvid_sequences.json', content) == [
        'some-2cores', 'seeds 0, 1', 2, 'none', '1.5–2.5', '2', 'abc',
        'nothing: docs/studies/camvid_sequences.md was written before']
    assert row_of(tmp_path, 'complexity.json', dict(environment=MACHINE))[4] == 'counts'


def test_runs_of_a_pilot_are_runs_of_the_file_and_before_the_others_all_that_there_is(tmp_path):
    pilot = [dict(arm='inception', seed=seed, load_average=1.5, threads=2, commit='abc') for seed in (100, 101)]
    content = dict(protocol='docs/studies/ablations.md', plan=None, pilot=pilot, runs=[], failed=[],
                   environment=MACHINE)
    assert row_of(tmp_path, 'ablations.json', content)[1:7] == [
        'no seed; of the pilot seeds 100, 101', 2, 'none', '1.5', '2', 'abc']


def test_the_recipe_for_own_images_is_among_the_files_though_its_runs_alone_record_their_machine(tmp_path):
    # Without averaged weights the runs of the recipe are measured once more: nothing was trained.
    runs = [dict(variant='recipe', seed=0, environment=dict(MACHINE, load_average=1.2, threads=2, commit='abc')),
            dict(variant='recipe', seed=1, environment=None), dict(variant='no_ema', seed=0, environment=None)]
    content = dict(config='x.py', minutes=60, threads=2, command='python -m x', runs=runs)
    name = 'some-2cores/camvid_own.json'
    *row, decided = row_of(tmp_path, name, content)
    assert row == ['some-2cores', 'seeds 0, 1', 2, 'none', '1.2', '2', 'abc'] and 'schedule' in decided
    results = Results(tmp_path)
    results.files[tmp_path / name] = content
    assert '| [some-2cores/camvid_own.json](results/some-2cores/camvid_own.json) |' in checklist(results)


def test_of_speed_the_threads_are_those_of_its_cells(tmp_path):
    one, two = (next(cell.name for cell in cells() if cell.threads == threads) for threads in (1, 2))
    assert row_of(tmp_path, 'a/speed.json', speed(one, two))[5] == '1, 2'
    assert row_of(tmp_path, 'a/speed.json', speed(one))[5] == '1'


def test_of_a_gpu_the_cells_that_ran_count_and_those_that_failed_are_named(tmp_path):
    cells = dict(a=dict(kind='speed', origin=dict(commit='abc')), b=dict(kind='speed', error='x'))
    content = dict(environment=MACHINE, conditions={}, cells=cells)
    assert row_of(tmp_path, 'some-gpu/gpu.json', content)[:7] == [
        'some-gpu', 'a process a cell', 1, 'none; 1 failed', '9', '1', 'abc, later']


def test_an_image_of_256_is_no_larger_image(tmp_path):
    results = Results(tmp_path)
    results.speed = [('a', Speed(speed(*(cell.name for cell in cells() if cell.suite == 'growth'))))]
    assert [(figure.what, figure.value) for figure in growing(results)] == [('side 768', 2), ('side 1024', 2)]


def test_of_a_study_with_a_list_of_processes_each_counts(tmp_path):
    content = dict(threads=2, environment=MACHINE, processes=[dict(load_average=0.7), dict(load_average=1.7)])
    assert row_of(tmp_path, 'a/window_speed.json', content)[1:6] == ['2 processes', 2, 'none', '0.7–1.7', '2']
