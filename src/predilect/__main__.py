"""Start the command line, and end with a word where Ctrl-C comes while it still loads."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Load the command line and run it; `predilect.cli.main` says how it ends."""
    try:
        from predilect.cli import main as run_command

        run_command()
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
