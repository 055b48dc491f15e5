"""Entry of the dashboard: frame, guard and navigation; one line a page, no other logic.

It must not sit beside `pages/`: with a sibling folder of that name Streamlit runs a page before this script.
"""

import streamlit as st

from pages._ui import shell
from pages._ui.guard import guarded

st.set_page_config(page_title="Signalbox", page_icon=str(shell.ASSETS / "icon.png"), layout="wide")
st.html(shell.style_sheet())
st.logo(str(shell.ASSETS / "logo.svg"), size="large", icon_image=str(shell.ASSETS / "logo.svg"))

navigation = st.navigation(
    {
        "Operate": [
            st.Page(
                shell.page_script("overview"),
                title="Overview",
                icon=":material/space_dashboard:",
                default=True,
            ),
            st.Page(shell.page_script("endpoints"), title="Endpoints", icon=":material/hub:"),
            st.Page(shell.page_script("rollouts"), title="Rollouts", icon=":material/alt_route:"),
            st.Page(shell.page_script("live"), title="Live", icon=":material/monitoring:"),
        ],
        "Models": [
            st.Page(shell.page_script("versions"), title="Versions", icon=":material/inventory_2:"),
            st.Page(shell.page_script("upload"), title="Upload", icon=":material/upload:"),
            st.Page(shell.page_script("optimization"), title="Optimisation", icon=":material/speed:"),
            st.Page(shell.page_script("nemo_rl"), title="NeMo RL", icon=":material/model_training:"),
            st.Page(shell.page_script("jobs"), title="Jobs", icon=":material/assignment:"),
        ],
        "Investigate": [
            st.Page(shell.page_script("debugger"), title="Debugger", icon=":material/bug_report:"),
            st.Page(
                shell.page_script("profiling"), title="Profiling", icon=":material/local_fire_department:"
            ),
        ],
        "Govern": [
            st.Page(shell.page_script("activity"), title="Activity", icon=":material/history:"),
        ],
    }
)
with st.sidebar:
    shell.footer()
with guarded():
    navigation.run()
