"""`python -m eyesmith`: the command, where no script of that name is on the PATH."""

import sys

from eyesmith.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
