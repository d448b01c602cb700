"""Everything there is to know on a GPU, by one command: make gpu

Tests of tests/gpu, then throughput and memory of training and inference, into docs/results/GPU/. What is stopped goes
on with the next cell. Exit status 3: there is no GPU; 1: something failed; make itself ends with 2 in both cases.
"""
import argparse
import sys

import _repository  # noqa: F401

from inceptionnext_seg.errors import exit_on_user_error
from inceptionnext_seg.provenance import device_name
from studies.gpu.running import failures, no_gpu, out_folder, run_all, what_to_send


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--quick', action='store_true', help='a small model, to exercise the command itself')
    parser.add_argument('--only', nargs='+', default=[''], metavar='PART', help='of the names of the cells')
    parser.add_argument('--again', action='store_true', help='run cells that the result file has, too')
    parser.add_argument('--out', help='folder of the result; by default docs/results/GPU')
    return parser.parse_args()


@exit_on_user_error
def main():
    args = parse_args()
    reason = no_gpu(args.device)
    if reason is not None:
        print(f'make gpu: {reason}', file=sys.stderr)
        sys.exit(3)
    out = args.out or out_folder(args.device, device_name(args.device), args.quick)
    result = run_all(args.device, out, args.quick, args.only, again=args.again)
    print(what_to_send(out, result))
    sys.exit(1 if failures(result) else 0)


if __name__ == '__main__':
    main()
