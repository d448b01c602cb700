"""GitHub's workflows and the Dockerfile, as far as they can be checked without running them."""
import os
import re
import shutil
import subprocess

import pytest

from inceptionnext_seg import __version__
from inceptionnext_seg.cli import COMMANDS

yaml = pytest.importorskip('yaml')
tomllib = pytest.importorskip('tomllib', reason='is part of Python from 3.11 on')
NAMES = ('ci', 'release')


@pytest.fixture(scope='module', params=NAMES)
def workflow(request, root):
    return yaml.safe_load((root / f'.github/workflows/{request.param}.yml').read_text())


def steps(workflow):
    return [step for job in workflow['jobs'].values() for step in job.get('steps', ())]


def test_a_workflow_runs_what_the_makefile_has_with_no_more_rights_than_it_needs(workflow, root):
    assert workflow[True] and workflow['permissions'] == {'contents': 'read'}     # YAML 1.1 reads `on` as True
    targets = set(re.findall(r'^([\w-]+):', (root / 'Makefile').read_text(), re.M))
    runs = '\n'.join(step.get('run', '') for step in steps(workflow))
    called = set(re.findall(r'\bmake ([\w-]+)', runs))
    assert called <= targets
    assert all(('run' in step) != ('uses' in step) for step in steps(workflow))
    assert all(re.search(r'@(v\d+|release/v\d+)$', step['uses']) for step in steps(workflow) if 'uses' in step)
    for job in workflow['jobs'].values():
        assert set(job.get('needs', '').split()) <= workflow['jobs'].keys()


def test_what_a_step_runs_is_shell_that_names_files_and_commands_that_are_there(workflow, root):
    for script in (step['run'] for step in steps(workflow) if 'run' in step):
        # A single word, as a version or a name is.
        script = re.sub(r'\$\{\{.*?\}\}', 'expression', script)
        if shell := shutil.which('bash'):
            parsed = subprocess.run([shell, '-n'], input=script, text=True, capture_output=True)
            assert parsed.returncode == 0, parsed.stderr
        files = re.findall(r'(?<![\w"$/.-])\w[\w-]*/[\w./-]+\.(?:py|toml|yml|md)\b', script)
        assert all((root / name).is_file() for name in files), files
        assert set(re.findall(r'inceptionnext-seg (\w[\w-]*)', script)) <= set(COMMANDS)
    # GitHub's own limit is six hours, in which a step that hangs is paid for.
    # A job that is another workflow has those of its jobs.
    assert all(0 < job['timeout-minutes'] <= 60 for job in workflow['jobs'].values() if 'uses' not in job)


def test_what_a_job_takes_over_another_has_left(workflow):
    given = {step['with']['name'] for step in steps(workflow) if 'upload-artifact' in step.get('uses', '')}
    taken = {step['with']['name'] for step in steps(workflow) if 'download-artifact' in step.get('uses', '')}
    assert taken <= given


def test_a_release_gives_each_artifact_a_name_of_its_own(root):
    """ci.yml runs within it, as the same run, and GitHub refuses a name that the run has already."""
    files = [yaml.safe_load((root / f'.github/workflows/{name}.yml').read_text()) for name in NAMES]
    names = [step['with']['name'] for file in files for step in steps(file)
             if 'upload-artifact' in step.get('uses', '')]
    assert len(names) == len(set(names)) > 2, names
    assert not any('strategy' in job and 'upload-artifact' in str(job) for file in files
                   for job in file['jobs'].values())


@pytest.fixture
def released(root, tmp_path):
    """A folder with what the steps before building make of README, changelog and pyproject.toml at the tag v1.2.3."""
    for name in ('README.md', 'pyproject.toml'):
        shutil.copy(root / name, tmp_path)
    (tmp_path / 'CHANGELOG.md').write_text('# Changelog\n\n## 1.2.3\n\n### Added\n\n- A.\n\n## 1.2.2\n\n- Old.\n')
    build = yaml.safe_load((root / '.github/workflows/release.yml').read_text())['jobs']['build']['steps']
    scripts = [step['run'] for step in build if step.get('name', '').startswith(('The notes', 'Links'))]
    assert len(scripts) == 2
    for script in scripts:
        variables = dict(os.environ, GITHUB_REF_NAME='v1.2.3', GITHUB_REPOSITORY='owner/name')
        subprocess.run(['bash', '-e', '-c', script], cwd=tmp_path, env=variables, check=True)
    return tmp_path


@pytest.mark.skipif(not shutil.which('bash'), reason='needs bash')
def test_a_release_has_the_notes_of_its_version_and_links_that_work_on_pypi(released, root):
    assert (released / 'notes.md').read_text().split() == ['###', 'Added', '-', 'A.']
    before, after = ((folder / 'README.md').read_text() for folder in (root, released))
    old, new = (re.findall(r'\]\(([^)]+)\)', text) for text in (before, after))
    assert all(link.startswith('https://') for link in new) and len(new) == len(old) > 20
    for link, target in zip(old, new, strict=True):
        if not link.startswith('https:'):
            at = 'https://raw.githubusercontent.com/owner/name/v1.2.3/' if link.endswith('.png') else \
                'https://github.com/owner/name/blob/v1.2.3/'
            assert target == at + link
    assert re.sub(r'\]\([^)]+\)', '', after) == re.sub(r'\]\([^)]+\)', '', before)
    urls = tomllib.loads((released / 'pyproject.toml').read_text())['project']['urls']
    assert urls['Repository'] == 'https://github.com/owner/name' and urls['Changelog'].endswith('v1.2.3/CHANGELOG.md')


def test_the_changelog_has_a_section_of_this_version(root):
    heads = re.findall(r'^## (\S+)', (root / 'CHANGELOG.md').read_text(), re.M)
    assert __version__ in heads and len(heads) == len(set(heads))


def test_the_audit_looks_at_every_package_and_an_unknown_one_is_an_error(root):
    """PyPI has no versions like 2.14.1+cpu: pip-audit would leave torch out in silence."""
    steps_of = yaml.safe_load((root / '.github/workflows/ci.yml').read_text())['jobs']['audit']['steps']
    script, = (step['run'] for step in steps_of if 'pip-audit' in step.get('run', ''))
    assert re.search(r'pip-audit --strict .*--requirement installed\.txt', script)
    listing, = re.findall(r'pip list .* \| (sed .*) > installed\.txt', script)
    found = subprocess.run(['bash', '-c', listing], input='torch==2.14.1+cpu\nnumpy==2.4.0\n', text=True,
                           capture_output=True, check=True).stdout
    assert found == 'torch==2.14.1\nnumpy==2.4.0\n'


def test_the_tests_run_on_every_python_and_on_the_oldest_and_the_newest_torch(root):
    project = tomllib.loads((root / 'pyproject.toml').read_text())['project']
    matrix = yaml.safe_load((root / '.github/workflows/ci.yml').read_text())['jobs']['tests']['strategy']['matrix']
    assert matrix['python'] == ['3.10', '3.11', '3.12', '3.13']
    assert project['requires-python'] == f'>={matrix["python"][0]}'
    assert f'torch>={matrix["torch"][0]}' in project['dependencies'] and matrix['torch'][1] == 'newest'
    assert matrix['exclude'] == [dict(python='3.13', torch='2.4')]


def test_the_oldest_torch_has_the_tests_that_the_documentation_says_were_run_on_it(root):
    job = yaml.safe_load((root / '.github/workflows/ci.yml').read_text())['jobs']['tests']
    oldest, = job['strategy']['matrix']['include']
    told, = re.findall(r'\(`tests/(models`, .*? `studies`)\)', (root / 'docs/installation.md').read_text(), re.S)
    folders = re.findall(r'\w+(?=`)', told)
    assert oldest == dict(torch='2.4', tests=' '.join(f'tests/{folder}' for folder in folders))
    assert all((root / 'tests' / folder).is_dir() for folder in folders)
    assert any("TESTS=\"${{ matrix.tests || 'tests' }}\"" in step.get('run', '') for step in job['steps'])
    assert '-m pytest $(TESTS) ' in (root / 'Makefile').read_text()


def test_a_release_is_of_the_version_in_the_package_and_published_without_a_token(root):
    text = (root / '.github/workflows/release.yml').read_text()
    pattern, = re.findall(r'sed -n "s/(.*?)/\\1/p" (inceptionnext_seg/_version\.py)', text)
    version = (root / pattern[1]).read_text()
    assert re.search(pattern[0].replace(r'\(', '(').replace(r'\)', ')'), version, re.M)
    jobs = yaml.safe_load(text)['jobs']
    assert jobs['pypi']['permissions'] == {'id-token': 'write'} and jobs['pypi']['environment'] == 'pypi'
    assert 'password' not in text and 'secrets' not in text
    # Nothing is published before the tests of this tag have passed.
    ci = yaml.safe_load((root / jobs['ci']['uses']).read_text())
    assert 'workflow_call' in ci[True] and any('make test' in step.get('run', '') for step in steps(ci))
    needed, job = [], 'pypi'
    while job := jobs[job].get('needs'):
        needed.append(job)
    assert needed == ['build', 'ci'] and jobs['github']['needs'] == 'pypi'


def test_the_image_copies_what_is_there_and_is_not_run_as_root(root):
    text = (root / 'Dockerfile').read_text()
    copied = [name for line in re.findall(r'^COPY (?!--from)(.*) \S+$', text, re.M) for name in line.split()]
    assert copied and all((root / name).exists() for name in copied)
    kept = set(re.findall(r'^!(\S+)$', (root / '.dockerignore').read_text(), re.M))
    assert set(copied) == kept
    stages = re.split(r'^FROM ', text, flags=re.M)[1:]
    final = {name: stage for stage in stages if (name := stage.split('\n')[0].split()[-1]) in ('cpu', 'cuda')}
    assert len(final) == 2 and all('USER 1000:1000' in stage and 'ENTRYPOINT' in stage for stage in final.values())
    assert re.search(r'^FROM python:3\.\d+\.\d+-', text, re.M)
