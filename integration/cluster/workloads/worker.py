"""A worker that exposes no port: takes jobs from one queue and puts `WORKER_NAME did JOB` into another.

Settings by environment: QUEUE_URL (http://queues:8090), JOBS (jobs), RESULTS (results), WORKER_NAME (the host name).
"""

import http.client
import os
import socket
import sys
import time
import urllib.parse


def work(url: str, jobs: str, results: str, name: str) -> None:
    """Take and do jobs for ever, over one connection as long as it lasts."""
    host = urllib.parse.urlsplit(url).netloc
    while True:
        connection = http.client.HTTPConnection(host, timeout=30)
        try:
            while True:
                connection.request("GET", f"/{jobs}?wait=20")
                response = connection.getresponse()
                job = response.read().decode()
                if response.status != 200:
                    continue
                connection.request("POST", f"/{results}", f"{name} did {job}")
                connection.getresponse().read()
                sys.stdout.write(f"did {job}\n")
                sys.stdout.flush()
        except (OSError, http.client.HTTPException) as error:
            sys.stderr.write(f"{url}: {error}; again in a second\n")
            time.sleep(1)
        finally:
            connection.close()


if __name__ == "__main__":
    environment = os.environ
    work(
        environment.get("QUEUE_URL", "http://queues:8090"),
        environment.get("JOBS", "jobs"),
        environment.get("RESULTS", "results"),
        environment.get("WORKER_NAME", socket.gethostname()),
    )
