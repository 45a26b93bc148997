"""`annotate` as a step of datatrove, whose executors start the workers: local, Slurm, Ray, Hugging Face's
Jobs.
"""

from typing import Any

from datatrove.pipeline.base import PipelineStep

from .annotate_command import AnnotationJob


class AnnotateStep(PipelineStep):
    """One worker of an annotation, the only step of its pipeline: datatrove's tasks are the workers.

    datatrove takes a task whose marker is there for done. So after shards were damaged, run with
    ``skip_completed=False``: what is done is not done again.

    Args:
        job: what to annotate, by what, into which folder.
    """

    type = "annotation"
    name = "mmner"

    def __init__(self, job: AnnotationJob) -> None:
        super().__init__()
        self.job = job

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Any:
        """Annotate this task's shards; gives no documents.

        Raises:
            RuntimeError: some could not be annotated; the task is not marked as done.
        """
        with self.track_time():
            outcome = self.job.run(rank=rank, world_size=world_size)
        self.stat_update("shards", value=len(outcome.errors))
        self.stat_update("rows with an error", value=sum(outcome.errors.values()))
        if outcome.failures:
            raise RuntimeError("; ".join(outcome.failures.values()))
        return ()
