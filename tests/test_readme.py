import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from mmseg.apis import init_model
from PIL import Image

from inceptionnext_seg.zoo import find_config

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
DOCUMENTS = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted((ROOT / 'docs').glob('*.md')),
             ROOT / 'docs/results/README.md']


@pytest.fixture(scope='module')
def tool():
    return runpy.run_path(str(ROOT / 'tools/readme.py'))


def test_the_blocks_of_the_documents_are_what_the_result_files_say(tool):
    for name, blocks in tool['DOCUMENTS'].items():
        text = (ROOT / name).read_text()
        assert tool['filled'](text, blocks) == text
        assert set(re.findall(r'<!-- begin (\w+):', text)) == set(blocks)


def test_what_the_parts_of_the_recipe_bring_is_shown_once_it_was_measured(tool, tmp_path, monkeypatch):
    names, folder = tool['camvid_own'].__globals__, tmp_path / 'docs/results/machine'
    folder.mkdir(parents=True)

    def write(name, minutes, *variants):
        runs = [dict(variant=variant, without=variant, seed=seed, minutes=minutes, iterations=9, mIoU=50. + seed,
                     validations=[], environment=None) for variant, seed in variants]
        (folder / name).write_text(json.dumps(dict(minutes=minutes, threads=1, runs=runs)))

    monkeypatch.setitem(names, 'ROOT', tmp_path)
    monkeypatch.setitem(names, 'RESULTS', folder.parent)
    assert 'Not measured yet.' in tool['camvid_own']() and tool['camvid_own_words']() == 'Not measured yet.'
    write('camvid_own_one_core.json', 60, ('recipe', 0))
    assert 'is not measured' in tool['camvid_own']()
    write('camvid_own_20min.json', 20, ('recipe', 0), ('recipe', 1), ('no_ema', 0))
    text = tool['camvid_own']()
    assert text.startswith('- 60 minutes') and '\n- 20 minutes' in text and 'runs of 20 minutes' in text
    assert 'not measured' not in text and '| no_ema | 50.00 | 1 | -0.50 (' in text
    assert tool['camvid_own_words']().count('\n') == 0 and '60 minutes on' in tool['camvid_own_words']()
    assert tool['camvid_own_words']().endswith(
        '; [20 minutes](docs/results/machine/camvid_own_20min.md): 50.50 ± 0.71 (2 seeds)')


@pytest.mark.parametrize('path', sorted((ROOT / 'docs/results').rglob('*.md')), ids=lambda path: path.stem)
def test_the_pictures_of_a_report_are_those_beside_it(path):
    stems = [report.stem for report in path.parent.glob('*.md')]
    beside = {picture.name for picture in path.parent.glob('*.png') if path.stem == max(
        (stem for stem in stems if picture.name.startswith(f'{stem}_')), key=len, default=None)}
    assert beside == {
        name for name in re.findall(r'!\[.*?\]\((.*?)\)', path.read_text()) if name.startswith(f'{path.stem}_')}


def test_the_readme_is_short():
    assert len(README.splitlines()) < 160


@pytest.mark.parametrize('path', DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_links_to_or_runs_is_there(path):
    text = path.read_text()
    links = re.findall(r'\]\((?!http)([^)#]+)(?:#[^)]*)?\)', text)
    assert [link for link in links if not (path.parent / link).exists()] == []
    commands = set(re.findall(r'(?<![\w/.])(?:tools|configs|studies)/[\w./]+\.py', text))
    assert [command for command in sorted(commands) if not (ROOT / command).exists()] == []


def test_every_page_of_the_documentation_is_linked_from_the_readme():
    pages = {f'docs/{path.name}' for path in (ROOT / 'docs').glob('*.md')}
    assert pages - set(re.findall(r'\]\(([^)#]+)\)', README)) == set()


def test_the_tests_that_the_comparison_names_are_there():
    text = (ROOT / 'docs/comparison.md').read_text()
    listed = re.findall(r'^\d+\. `(tests/\S+)`:((?:\s+`test_\w+`,?)+)', text, re.M)
    cited = {int(number) for number in re.findall(r'\((\d+)\)', text)}
    assert cited == set(range(1, len(listed) + 1))
    for file, names in listed:
        defined = set(re.findall(r'^def (test_\w+)', (ROOT / file).read_text(), re.M))
        assert set(re.findall(r'test_\w+', names)) <= defined, file


def test_every_tool_is_in_the_table_of_tools():
    table = (ROOT / 'docs/tools.md').read_text()
    tools = {path.name for path in (ROOT / 'tools').glob('[!_]*.py')}
    assert {tool for tool in tools if f'| `tools/{tool}' not in table} == set()


def test_the_lines_of_python_load_a_checkpoint_and_segment_an_image(tmp_path, monkeypatch):
    block, = re.findall(r'```python\n(import inceptionnext_seg\n.*?)```', README, flags=re.DOTALL)
    pixels = np.random.default_rng(0).integers(0, 256, (96, 130, 3), dtype=np.uint8)
    path, = re.findall(r"image = '(.*?)'", block)
    (tmp_path / path).parent.mkdir(parents=True)
    Image.fromarray(pixels).save(tmp_path / path)
    config, weights = re.findall(r"load\('(.*?)', '(.*?)'\)", block)[0]
    (tmp_path / weights).parent.mkdir(parents=True)
    torch.save(dict(state_dict=init_model(str(find_config(config)), device='cpu').state_dict()), tmp_path / weights)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    found = names['found']
    assert found.classes.shape == found.confidence.shape == found.entropy.shape == (96, 130)
    assert set(found.shares) <= set(names['model'].labels.classes) and found.overlay().width > 130
