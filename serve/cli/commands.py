"""The command line, `crossbind`. Exit status 0 means done, 1 that some inputs failed, 2 a usage error.

No module of the command line imports anything heavy at its top, so that `crossbind --help` answers at once.
"""

from __future__ import annotations

import io
import sys

from serve import check_packages
from serve.cli import (  # noqa: F401  (each adds its commands)
    folder_commands,
    library_commands,
    locate_command,
    marks_commands,
    mcp_command,
    model_commands,
    models_command,
    server_commands,
    shell_command,
)
from serve.cli.application import app


def main() -> None:
    """Runs the command line. A bad input never ends in a traceback."""
    if sys.platform == "win32":
        print(
            "Crossbind does not run on Windows itself; use it in the Windows Subsystem for Linux (`wsl --install`)",
            file=sys.stderr,
        )
        sys.exit(2)
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    try:
        check_packages()
    except ImportError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    from bind import origin

    origin.leave_folder()
    try:
        app()
    except KeyboardInterrupt:
        print("crossbind: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
