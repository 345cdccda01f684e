"""Long work: jobs of tasks, in stages, that survive crashes of workers and of the database.

The rows `job` and `job_task` are the truth. The queue library (pgqueuer) only carries task ids to workers;
every change of its entries is made in the transaction that changes our rows. A worker holds a task by a
heartbeat, and (worker, attempt) fences what it writes; an attempt is counted before its work begins, so a
crash uses it up.
"""

from interpedia_shared.jobs.context import Handler, TaskContext
from interpedia_shared.jobs.errors import TaskCancelled, TaskFailed, TaskLost, TaskReleased
from interpedia_shared.jobs.events import read_events
from interpedia_shared.jobs.plan import TaskSpec
from interpedia_shared.jobs.process import run_until_signal
from interpedia_shared.jobs.schemas import JobEventOut, JobOut, TaskCounts
from interpedia_shared.jobs.service import cancel_job, create_job, get_job, job_out, jobs_out, retry_job
from interpedia_shared.jobs.timing import WorkerTiming
from interpedia_shared.jobs.worker import Worker

__all__ = [
    "Handler",
    "JobEventOut",
    "JobOut",
    "TaskCancelled",
    "TaskContext",
    "TaskCounts",
    "TaskFailed",
    "TaskLost",
    "TaskReleased",
    "TaskSpec",
    "Worker",
    "WorkerTiming",
    "cancel_job",
    "create_job",
    "get_job",
    "job_out",
    "jobs_out",
    "read_events",
    "retry_job",
    "run_until_signal",
]
