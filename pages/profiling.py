"""Profiling: a new profile (`?version=model@N` or `&endpoint=`) with the list of profiles, or one report
(`?run=`) at one of its views (`&tab=`, `&with=` for the one it is compared with)."""

from pages._ui import links, profiling_new, profiling_report, shell


def main() -> None:
    links.follow("run")
    report_id = shell.param("run")
    if report_id:
        profiling_report.draw(report_id)
        return
    profiling_new.draw()


main()
