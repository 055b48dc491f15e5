#!/bin/sh
# Bring what the tests need beyond Python packages: a Chromium browser and PostgreSQL's server programs.
# Uses what is installed; else Playwright's own browser; else the system's packages, when run as root.
set -eu
python=$1

have_browser() {
    command -v chromium >/dev/null || command -v google-chrome >/dev/null ||
        "$python" - <<'PY'
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

with sync_playwright() as playwright:
    sys.exit(not Path(playwright.chromium.executable_path).exists())
PY
}

have_postgres() {
    command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1
}

install() {
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        echo "The tests need $1. Install it with your system's package manager, then run make test again." >&2
        exit 1
    fi
    echo "Installing $1 for the tests."
    [ -n "${updated:-}" ] || apt-get update -qq
    updated=1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$1" >/dev/null
}

have_browser || "$python" -m playwright install chromium >/dev/null 2>&1 || install chromium
have_postgres || install postgresql
