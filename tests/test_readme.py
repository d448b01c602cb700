import re
import runpy
import shutil
from pathlib import Path

from inceptionnext_seg.engine.launch import load_config

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


def test_the_blocks_of_the_readme_are_what_the_result_files_say():
    readme = runpy.run_path(str(ROOT / 'tools/readme.py'))
    assert readme['filled'](README) == README


def test_every_file_that_the_readme_links_to_or_runs_is_there():
    links = re.findall(r'\]\((?!http)([^)#]+)\)', README)
    commands = re.findall(r'(?:tools|configs)/[\w./]+\.py', README)
    commands.remove('configs/my_data.py')  # the reader's own
    missing = [path for path in {*links, *commands} if not (ROOT / path).exists()]
    assert not missing


def test_every_tool_is_in_the_readmes_table():
    tools = {path.name for path in (ROOT / 'tools').glob('*.py')} - {'readme.py'}
    assert {tool for tool in tools if f'`tools/{tool}' not in README} == set()


def test_the_five_settings_for_ones_own_images_reach_data_and_heads(tmp_path):
    block, = re.findall(r"```python\n(_base_ = \['upernet_inceptionnext_a_camvid.py'\].*?)```", README, flags=re.DOTALL)
    shutil.copytree(ROOT / 'configs', tmp_path / 'configs')
    path = tmp_path / 'configs/my_data.py'
    path.write_text(block)
    cfg = load_config(path)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == 'data/mine'
        assert loader.dataset.metainfo.classes == ('cat', 'dog') and len(loader.dataset.metainfo.palette) == 2
        assert loader.dataset.pipeline[0].type == 'LoadImageFromFile'
    assert cfg.model.decode_head.num_classes == cfg.model.auxiliary_head.num_classes == 2
    assert cfg.model.backbone.type == 'InceptionNeXt'
