"""The command line, tools/compare.py."""
import importlib.util
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]


def load_tool():
    spec = importlib.util.spec_from_file_location('compare', REPOSITORY / 'tools/compare.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_report_is_rebuilt_byte_for_byte_from_its_json_alone(candidates, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr('sys.argv', ['tools/compare.py', f'A={tmp_path}/A0'])
    compare = load_tool()
    arguments = [f'{name}={",".join(map(str, runs))}' for name, runs in candidates.items()]
    compare.main([*arguments, '--title', 'Two | <three>', '--out', 'first/two.md', '--html'])
    names = ['two.html', 'two.json', 'two.md', 'two_classes.png', 'two_curves.png', 'two_speed.png']
    assert sorted(path.name for path in Path('first').iterdir()) == names
    for runs in candidates.values():
        for run in runs:
            run.rename(run.with_name(f'{run.name}-gone'))
    compare.main(['--from', 'first/two.json', '--out', 'second/two.md', '--html'])
    for name in names:
        assert Path('second', name).read_bytes() == Path('first', name).read_bytes()
        assert Path('first', name).stat().st_size < 200_000
    page, text = Path('first/two.html').read_text(), Path('first/two.md').read_text()
    assert 'Two | &lt;three&gt;' in page and page.count('src="data:image/png;base64,') == 3
    assert set(re.findall(r'\]\((.+?)\)', text)) == {name for name in names if name.endswith('png')}
    assert str(tmp_path) not in text + page + Path('first/two.json').read_text()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['A=x'], 'one candidate given'), (['A=x', 'x'], "'x' is not NAME=RUN"), (['A=x', 'B=x,,y'], 'is not NAME=RUN'),
    (['A=x', 'A=y'], 'given twice'), (['A|B=x', 'C=y'], 'is not NAME=RUN'),
])
def test_arguments_that_name_no_runs_are_one_clear_message(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        load_tool().main([*arguments, '--out', str(tmp_path / 'x.md')])
    assert stop.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize('text', [
    '{"format": "another"}', '{"format": "inceptionnext_seg comparison 1", "title": "x"}'])
def test_a_json_of_something_else_is_one_clear_message(tmp_path, capsys, text):
    (tmp_path / 'x.json').write_text(text)
    with pytest.raises(SystemExit):
        load_tool().main(['--from', str(tmp_path / 'x.json'), '--out', str(tmp_path / 'y.md')])
    assert 'tools/compare.py NAME=RUN NAME=RUN' in capsys.readouterr().err
    assert not (tmp_path / 'y.md').exists()
