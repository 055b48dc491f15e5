"""Rollouts: list by state (`?state=`), one of them (`?id=`), and the draft of a new one
(`?new=endpoint&candidate=model@N`)."""

from pages._ui import links, rollout_detail, rollout_draft, rollout_list, shell


def main() -> None:
    links.follow("id", "new")
    rollout_id = shell.param("id")
    if rollout_id:
        rollout_detail.draw(rollout_id)
        return
    endpoint = shell.param("new")
    if endpoint:
        rollout_draft.draw(endpoint, shell.param("candidate"))
        return
    shell.title("Rollouts", "New versions on their way to all traffic, each with proof or back again.")
    rollout_list.draw()


main()
