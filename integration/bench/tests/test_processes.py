from __future__ import annotations

import os
import subprocess
import sys
import time

from integration.bench import processes

STAT = "42 (a (strange) name) S 7 42 42 0 -1 4194560 1 2 3 4 150 50 6 7 20 0 3 0 100 1 2"


def test_fields_are_counted_after_the_name() -> None:
    assert processes.parent(STAT) == 7
    assert processes.cpu_seconds(STAT) == 200 / processes.TICKS


def test_pss_in_megabytes() -> None:
    assert processes.pss_mb("00-ff ---p 00:00 0 [rollup]\nRss: 9 kB\nPss:    1000 kB\nPss_Dirty: 5 kB\n") == 1.024
    assert processes.pss_mb("") == 0.0


def test_a_real_process_is_found_and_measured() -> None:
    busy = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\ninput()"
    with subprocess.Popen([sys.executable, "-c", busy], stdin=subprocess.PIPE) as child:
        named = {"busy": processes.find(processes.descendants(os.getpid()), lambda words: words[-1] == busy)}
        assert named == {"busy": [child.pid]}
        sample = processes.Sample(named)
        deadline = time.monotonic() + 20
        while sample.used()["busy"] < 0.1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert sample.used()["busy"] >= 0.1
        assert 1 < processes.memory_mb(named)["busy"] < 100
        assert processes.network(child.pid) == processes.network(os.getpid())
        child.communicate(b"\n")
    assert processes.memory_mb(named) == {"busy": 0.0}
    assert processes.network(child.pid) is None
