"""`python -m control_plane` is `signalbox`."""

from control_plane.cli import main

if __name__ == "__main__":
    main()
