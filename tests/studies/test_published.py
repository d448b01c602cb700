"""Every result file has a report and a study; pictures say what they were drawn from."""
import importlib.util
import io
import json
import shlex
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from inceptionnext_seg.errors import UserError
from studies.__main__ import commands_of, listing, main
from studies.published.files import read, report_of, result_files, stale_pictures
from studies.published.machine import folder_name
from studies.published.stamps import digest, stamp, stamp_of
from studies.published.studies import STUDIES, recorded_seconds, study_of, takes

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / 'docs/results'


@pytest.mark.parametrize('path', result_files(RESULTS), ids=lambda path: str(path.relative_to(RESULTS)))
def test_report_and_pictures_beside_a_result_file_are_made_from_it(path):
    content = read(path)
    report, text = report_of(content, path, RESULTS), path.with_suffix('.md')
    if report.text is None:
        assert not text.exists()
        return
    assert report.text(content, path) == text.read_text(), 'Next: python tools/readme.py'
    assert stale_pictures(content, path, report)[0] == {}, 'Next: python tools/readme.py'


def test_a_file_that_no_study_writes_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r'other\.json: no report is known'):
        report_of({}, tmp_path / 'other.json', tmp_path)


def test_a_stamp_changes_neither_pixels_nor_other_text(tmp_path):
    path, pixels = tmp_path / 'a.png', np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    text, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text('Description', 'kept')
    Image.fromarray(pixels).save(buffer, 'png', pnginfo=text)
    path.write_bytes(buffer.getvalue())
    assert stamp_of(path) is None and stamp_of(tmp_path / 'none.png') is None
    for value in ('first', 'second'):
        stamp(path, value)
        assert stamp_of(path) == value
        with Image.open(path) as image:
            assert image.text == {'Description': 'kept', 'Source': value}
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_picture_is_stale_when_its_data_or_its_code_change(tmp_path):
    code = tmp_path / 'code.py'
    code.write_text('a')
    before = digest(dict(a=1, b=2), code)
    assert digest(dict(b=2, a=1), code) == before and digest(dict(a=1, b=3), code) != before
    code.write_text('b')
    assert digest(dict(a=1, b=2), code) != before


def test_a_picture_is_stale_when_the_statistics_of_its_figures_change():
    for name in ('speed.json', 'operators.json'):
        path = RESULTS / 'xeon-amx-2cores' / name
        assert 'speed.statistics' in report_of(read(path), path, RESULTS).drawn_by


def test_the_report_of_dependent_images_has_no_interval_over_them():
    path = RESULTS / 'camvid.json'
    content = read(path)
    report = report_of(content, path, RESULTS)
    text = report.text(content, path)
    assert 'bootstrap' not in text and '**InceptionNeXt-A is higher' not in text
    assert [picture.name for picture in report.pictures(content, path)] == ['camvid_curves.png']
    other = path.with_name('some_comparison.json')
    assert 'bootstrap' in report_of(content, other, RESULTS).text(content, other)


# The studies


def test_every_result_file_is_written_by_a_study():
    patterns = [study.result.replace('{machine}', '*').replace('GPU', '*') for study in STUDIES.values()]
    for path in result_files(RESULTS):
        name = path.relative_to(RESULTS).as_posix()
        assert name.startswith('reproduced/') or any(fnmatch(name, pattern) for pattern in patterns), name


@pytest.mark.parametrize('name', STUDIES)
def test_what_a_study_runs_is_there(name):
    study = study_of(name)
    commands = commands_of(study, 'some-machine', ['--x'])
    assert [command for command in commands if '--x' in command] == [commands[study.measuring]]
    for command in commands:
        if command[0] == '-m':
            assert importlib.util.find_spec(command[1]) is not None
        for word in command:
            if word.endswith('.py') and word.startswith(('tools', 'configs', 'tests')):
                assert (ROOT / word).is_file()
    assert study.result.replace('{machine}', 'some-machine').removesuffix('.json') in ' '.join(
        map(shlex.join, commands)) or study.result.startswith(('GPU', 'gpu_', 'accelerate', 'ablations'))


def test_the_studies_are_listed_with_result_time_and_command(capsys):
    text = listing('my-machine')
    assert 'docs/results/my-machine/speed.json' in text and 'takes' in text and 'needs' in text
    for name, study in STUDIES.items():
        assert f'{name}: {study.question}' in text
    main(['--machine', 'my-machine', '--dry-run', 'speed', '--processes', '2'])
    assert capsys.readouterr().out == (
        'python -m studies.speed --out docs/results/my-machine/speed.json --processes 2\n')


def test_a_study_that_is_not_there_is_an_error_that_names_those_which_are(capsys):
    with pytest.raises(SystemExit):
        main(['sped'])
    assert "'sped' is no study" in capsys.readouterr().err


def test_how_long_a_study_took_is_read_from_its_result():
    assert recorded_seconds(dict(candidates=[dict(runs=[dict(metrics=dict(seconds=60))] * 3)])) == 180
    assert recorded_seconds(dict(pieces=[dict(seconds=2), dict(seconds=3)])) == 5
    assert recorded_seconds(json.loads('{"rows": []}')) is None
    # A first step that counts is not counted twice.
    steps = [dict(first=5.123, seconds=[5.1234]), dict(first=3, seconds=[1, 1])]
    assert recorded_seconds(dict(records=steps)) == pytest.approx(10.1234)
    assert recorded_seconds(dict(runs=[dict(wall=2), dict(wall=3)], accuracy={})) == 5
    assert recorded_seconds(dict(processes=[dict(rows=[dict(seconds=[1, 2]), dict(seconds=[3])])])) == 6
    assert takes(study_of('speed'), RESULTS).endswith(' min of runs, as recorded')


@pytest.mark.parametrize(('cpu', 'flags', 'expected'), [
    ('Intel(R) Xeon(R) Processor', {'amx_bf16', 'avx512_bf16'}, 'xeon-amx-2cores'),
    ('AMD EPYC 9R14 96-Core Processor', {'avx512_bf16'}, 'epyc-9r14-avx512bf16-2cores'),
    ('Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz', set(), 'core-i7-8550u-2cores')])
def test_the_folder_of_a_machine_says_what_decides_its_speed(cpu, flags, expected):
    assert folder_name(cpu, flags, 2) == expected
