import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


def test_the_blocks_of_the_readme_are_what_the_result_files_say():
    readme = runpy.run_path(str(ROOT / 'tools/readme.py'))
    assert readme['filled'](README) == README


def test_every_file_that_the_readme_links_to_or_runs_is_there():
    links = re.findall(r'\]\((?!http)([^)#]+)\)', README)
    commands = re.findall(r'(?:tools|configs)/[\w./]+\.py', README)
    missing = [path for path in {*links, *commands} if not (ROOT / path).exists()]
    assert not missing


def test_every_tool_is_in_the_readmes_table():
    tools = {path.name for path in (ROOT / 'tools').glob('*.py')} - {'readme.py'}
    assert {tool for tool in tools if f'`tools/{tool}' not in README} == set()
