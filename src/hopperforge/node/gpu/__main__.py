"""Run as `python3 -m hopperforge.node.gpu VERB words`, and out of the one file that `single_program` makes."""

import sys

from hopperforge.node.gpu.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
