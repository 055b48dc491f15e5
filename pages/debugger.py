"""Inference debugger: a new run (`?a=model@N`, `&b=`, `&example=`, ...) with the list of runs, or one run
(`?run=`) at one of its layers (`&layer=`, `&side=`)."""

from pages._ui import debugger_new, debugger_run, links, shell


def main() -> None:
    links.follow("run")
    run_id = shell.param("run")
    if run_id:
        debugger_run.draw(run_id)
        return
    debugger_new.draw()


main()
