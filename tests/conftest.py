"""Fixtures live where the plugins below say; this file only names them, and says how tests compute."""

import os

from hypothesis import HealthCheck, settings

# One thread each: tests run beside one another, and sums come out the same on every machine.
# Said before anything imports torch or numpy; the processes that tests start hear it too.
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"))

# A busy machine is no failure, and neither is an example that only this run happened to draw: look for new
# ones with --hypothesis-profile=default.
settings.register_profile(
    "steady", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("steady")

pytest_plugins = [
    "tests.support.database",
    "tests.support.folders",
    "tests.support.demo_model",
    "tests.client.scripted_server",
]
