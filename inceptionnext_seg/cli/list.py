"""Names of the package's configs: inceptionnext-seg list ["PATTERN"]"""
import argparse
import fnmatch

from ..errors import UserError, exit_on_user_error
from ..zoo import config_folder, configs


@exit_on_user_error
def main():
    parser = argparse.ArgumentParser(description='List the names of the configs, which every command takes')
    parser.add_argument('pattern', nargs='?', default='*', help='as of files, such as "*_ade20k" (default: all)')
    pattern = parser.parse_args().pattern
    names = fnmatch.filter(configs(), pattern)
    if not names:
        raise UserError(f'no config matches {pattern!r}; there are {len(configs())} in {config_folder()}.')
    print('\n'.join(names))
