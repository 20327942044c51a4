"""`python -m sidecar.workers`: one worker, started by its parent."""

import signal
import sys

# A terminal sends them to the whole group, but what they mean is the parent's to say. Before the
# other imports, which take a while.
for ignored in (signal.SIGINT, signal.SIGHUP):
    signal.signal(ignored, signal.SIG_IGN)

from sidecar.workers.worker import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
