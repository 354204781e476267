"""``python -m gpunet``: the shell command where its entry point is not on the path."""

import sys

from gpunet.cli.main import main

sys.exit(main())
