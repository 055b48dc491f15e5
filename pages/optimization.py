"""Optimisation: a new one of a version (`?version=model@N`, `&method=`), and one job (`?job=`) with the
report of one of its trials (`&trial=`)."""

from pages._ui import links, optimization_job, optimization_new, shell


def main() -> None:
    links.follow("job", "version")
    job_id = shell.param("job")
    if job_id:
        optimization_job.draw(job_id)
        return
    optimization_new.draw(shell.param("version"))


main()
