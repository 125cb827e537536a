"""A command that only pretends: it says whose child it is, and ends as its argument says, or waits for a signal.

python -m tests.compare.pretending [--end=CODE_OR_SIGNAL] [--wait] [--told]
"""

import os
import signal
import sys
import time

from cjepa_jax.runtime import preemption

if __name__ == "__main__":
    preemption.end_with_parent()
    print("parent", os.environ.get(preemption.PARENT), flush=True)
    (how,) = [word for word in sys.argv[1:] if not word.startswith("--config")]
    if how.startswith("--end="):
        end = how.removeprefix("--end=")
        if end.isdecimal():
            raise SystemExit(int(end))
        os.kill(os.getpid(), signal.Signals[end])
    got = []
    signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    print(f"SIGTERM: {preemption.SAVING}. Again: at once" if how == "--told" else "waiting", flush=True)
    print("ready", flush=True)
    until = time.monotonic() + (2.0 if how == "--told" else 60.0)
    while not got and time.monotonic() < until:
        time.sleep(0.05)
    print(f"got {len(got)} signals", flush=True)
    raise SystemExit(75)
